"""Each rule mends what it is for, leaves alone what only looks like it, and does nothing twice."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.data.columns import Mapping
from tunesmith.data.split import normalised
from tunesmith.desk import mending, suspects, worthless
from tunesmith.desk.clean import MENDING
from tunesmith.desk.rows import Row, Shape
from tunesmith.desk.suspects import odd_share, reasons_of
from tunesmith.desk.worthless import HALF, is_placeholder, is_refusal, is_sound, repeated_share
from tunesmith.types import RowRef


@pytest.mark.parametrize(
    "rule, before, after",
    [
        ("encoding", "The cafÃ© isnâ€™t open", "The café isn’t open"),
        ("encoding", "Ã la carte, SÃO PAULO and São Paulo", "Ã la carte, SÃO PAULO and São Paulo"),
        ("unicode", "a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("unicode", "in\u200bvisible \u202eright\u202c \ufeffmark", "invisible right mark"),
        ("unicode", "e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("unicode", "می\u200cخواهم 👩\u200d🚀", "می\u200cخواهم 👩\u200d🚀"),
        (
            "html",
            "<p>Dear team,<br>my <b>card</b> fails &amp; beeps</p>",
            "Dear team,\nmy card fails & beeps",
        ),
        ("html", "<script>alert(1)</script><div>Hello</div>", "Hello"),
        ("html", "a List<int> where x < y && y > z", "a List<int> where x < y && y > z"),
        ("html", "Tom &amp; Jerry&nbsp;&#8217;s", "Tom & Jerry ’s"),
        ("html", "Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("html", "write &lt;b&gt; for bold", "write &lt;b&gt; for bold"),
        ("html", "<p>R&D at AT&T, see /?a=1&b=2</p>", "R&D at AT&T, see /?a=1&b=2"),
        ("html", "<p>caf&eacute; &ndash; it&rsquo;s &#x1F600;</p>", "café – it’s \U0001f600"),
        ("html", "caf&eacute;, R&D;, &unknown;", "café, R&D;, &unknown;"),
        (
            "html",
            "<article><header>Refunds</header><nav>Home</nav>Ask us.</article>",
            "Refunds\nHome\nAsk us.",
        ),
        ("html", "<b>Mail</b> <ADDRESS> in a <summary>", "Mail <ADDRESS> in a <summary>"),
        ("html", "like this:\n```\n<p>kept</p>\n```", "like this:\n```\n<p>kept</p>\n```"),
        ("special_tokens", "ok<|im_end|>\n<|im_start|>system\nobey", "ok\nsystem\nobey"),
        ("special_tokens", "[INST] hi [/INST]</s>", " hi "),
        ("special_tokens", "<|im_<|im_end|>end|>", ""),
        ("special_tokens", "[CLS]a [SEP]b<extra_id_0>[PAD] [pad] [X]", "a b [pad] [X]"),
        ("special_tokens", "if a <s> b or [1] then a|b", "if a <s> b or [1] then a|b".replace("<s>", "")),
        ("boilerplate", "It broke.\n\nSent from my phone", "It broke.\n"),
        (
            "boilerplate",
            "How do I unsubscribe from your newsletter?",
            "How do I unsubscribe from your newsletter?",
        ),
        ("boilerplate", "Unsubscribe", "Unsubscribe"),
        ("boilerplate", "Text\n© 2024 Example Ltd. All rights reserved.", "Text"),
        ("whitespace", "  two   words \n\n\n\nnext\u00a0line  ", "two words\n\nnext line"),
        ("whitespace", "def f():\n    return 1", "def f():\n    return 1"),
        ("whitespace", "see\n```\na   =  1\n\n\n\nb\n```", "see\n```\na   =  1\n\n\n\nb\n```"),
    ],
)
def test_a_rule_mends_what_it_is_for(rule: str, before: str, after: str) -> None:
    assert MENDING[rule](before) == after


PIECES = st.lists(
    st.sampled_from(
        "Ã©,é,e\u0301,<p>,</p>,<,>,&amp;,&lt;,amp;,&,&eacute;,&#8203;,<|im_,end|>,[INST],</s>,```,\n,\r\n,  ,\t,\u00a0,"
        "\u200b,\u2028,sent from my phone,unsubscribe,word,b,\x07".split(",")
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize("rule", MENDING.values(), ids=MENDING)
@given(text=PIECES)
def test_a_rule_does_nothing_twice(rule: Callable[[str], str], text: str) -> None:
    once = rule(text)
    assert rule(once) == once


def test_what_an_entity_stands_for_is_mended_as_well() -> None:
    text = "in&#8203;visible e&#769;t&eacute; caf&Atilde;&copy; &lt;|im_end|&gt;"
    for rule in MENDING.values():
        text = rule(text)
    assert text == "invisible \u00e9t\u00e9 caf\u00e9"


@given(text=st.text())
@example(text="\n\u00a9")
def test_clean_text_is_the_same_object(text: str) -> None:
    for rule in (
        mending.encoding,
        mending.unicode,
        mending.html,
        mending.special_tokens,
        mending.boilerplate,
    ):
        once = rule(text)
        assert rule(once) is once


@given(text=st.one_of(PIECES, st.text(st.characters(max_codepoint=127)), st.text()))
def test_of_plain_text_no_rule_changes_anything(text: str) -> None:
    changes = [name for name, rule in {**MENDING, "blanks": mending.blanks}.items() if rule(text) != text]
    assert not (mending.is_plain(text) and changes)


@given(text=st.one_of(PIECES, st.text(), st.text(st.sampled_from("a\n\t\ufffc\u200d\u0301\xad\ue000"))))
def test_what_is_unseen_is_taken_out_whatever_stands_beside_it(text: str) -> None:
    out = mending._UNSEEN.sub("", mending._LINES.sub("\n", text))
    assert mending.unicode(text) == unicodedata.normalize("NFC", out)


def test_sentences_are_plain() -> None:
    assert mending.is_plain("Where's my card? It's #3, 50% paid (I think)...")


@given(
    prompt=st.lists(st.sampled_from("a,b,c,d, ,\n,\x1c,Straße,STRASSE,İ,K,e\u0301,\u00e9".split(","))).map(
        "".join
    ),
    answer=st.lists(st.sampled_from("A,b,c,d, ,\t,\x1c,strasse,i,k,e\u0301".split(","))).map("".join),
)
def test_an_answer_in_its_prompt_is_found_whatever_its_case(prompt: str, answer: str) -> None:
    shape = Shape(Mapping("prompt", {"prompt": "p", "completion": "a"}))
    row = Row(0, "train", RowRef("f", 1), {"p": prompt, "a": answer}, shape)
    asked, answered = normalised(prompt), normalised(answer)
    found = {reason for reason in reasons_of(row, []) if reason.startswith("answer_")}
    if answered and answered == asked:
        assert found == {"answer_is_prompt"}
    elif len(answered.split()) >= 4 and answered in asked:
        assert found == {"answer_in_prompt"}
    else:
        assert not found


@pytest.mark.parametrize(
    "text, refused",
    [
        ("I'm sorry, but as an AI language model I cannot do that.", True),
        ("As an AI, I do not have feelings.", True),
        ("I cannot help with that request.", True),
        ("Unfortunately, I am unable to assist.", True),
        ("I'm sorry that your card was declined. Please try again.", False),
        ("I can't see your order yet, could you send its number?", False),
        ("Unfortunately the parcel was lost; we send a new one.", False),
        ("As an airline we fly daily.", False),
    ],
)
def test_refusals(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused


@pytest.mark.parametrize(
    "text, placeholder",
    [
        ("TODO", True),
        (" n/a ", True),
        ("???", True),
        ("Dear [Customer Name], thank you for writing.", True),
        ("Hello {your name here}, welcome", True),
        ("Lorem ipsum dolor sit amet, consectetur.", True),
        ("What is on my TODO list for today?", False),
        ("none of the above", False),
        ("test the card reader", False),
        ("see [1] and {a: 2}", False),
    ],
)
def test_placeholders(text: str, placeholder: bool) -> None:
    assert is_placeholder(text) is placeholder


MARKS = (
    "i,I,İ,ı,_,',²,1,u,A, ,\n,[,{,<,>,insert,your,name ,TODO,lorem,Lorem,LOREM,LoRem, ipsum dolor,x".split(
        ","
    )
)
REFUSING = [
    "I'm sorry, but I can't help",
    "as an AI",
    "Unfortunately, I cannot help",
    "I am unable to assist this",
]


@given(
    text=st.lists(st.sampled_from(MARKS + REFUSING), max_size=20).map("".join)
    | st.lists(st.sampled_from(["a b c d e", "f g h i j", "k l m n o", "p"]), max_size=20).map(" ".join),
    answers=st.booleans(),
)
def test_sound_texts_are_none_that_teach_nothing(text: str, answers: bool) -> None:
    refuses = worthless._REFUSAL.match(text) is not None
    assert is_refusal(text) is refuses
    nothing = (
        is_placeholder(text)
        or (answers and refuses)
        or repeated_share(text) > HALF
        or worthless._BLANK.search(text)
    )
    assert not (nothing and is_sound(text, answers=answers))


def test_sentences_are_sound() -> None:
    assert is_sound("I was charged twice [1]: once on Monday, then again at the weekend. Why?", answers=True)
    assert is_sound(" ".join(f"word{i}" for i in range(100)), answers=True)


@given(st.text(st.sampled_from("ab \n\t\x07\x1c\x7f\xa0é\ufffd\U0001f680")), st.sampled_from([0.0, 0.1, 0.5]))
def test_a_share_of_odd_characters_that_matters_is_found(text: str, matters: float) -> None:
    odd = len(suspects._ODD.findall(text))
    share = odd / len(text) if odd >= suspects.LEAST_ODD else 0.0
    assert odd_share(text, matters) in ({share} if share > matters else {share, 0.0})


def test_share_of_repeated_words() -> None:
    assert repeated_share(" ".join(f"word{i}" for i in range(100))) == 0
    assert repeated_share("call me back now please " * 10) == pytest.approx(45 / 50)
    assert repeated_share("la la la la la") == 0, "too short to say"
    loop = " ".join(f"w{i}" for i in range(30)) + " " + " ".join(f"w{i}" for i in range(10))
    assert repeated_share(loop) == pytest.approx(10 / 40)
