"""Finding personal data: how much of it, how little else, on sentences of our own; and a pre-filter that misses none.

The sentences stand in personal.txt; recall is of labelled values that a finding covers wholly, precision of findings
that overlap one.
"""

from __future__ import annotations

from functools import cache

import phonenumbers
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.desk.labelled import Sentence, scores, sentences, table
from tests.desk.test_make import TICKETS

from tunesmith.config.desk import Scrub
from tunesmith.desk import addresses, matching, prefilter, recognisers, secrets
from tunesmith.desk.automaton import kinds_possible
from tunesmith.desk.finding import Finder
from tunesmith.desk.kinds import KINDS, PERSON
from tunesmith.desk.phones import STRICT, Matcher, regions_possible

PATTERNS = [kind for kind in KINDS if kind != PERSON]
EVERY = range(100)
"""Places of expressions: all of them."""


@cache
def finder() -> Finder:
    return Finder.of(Scrub(), None)


def test_recall_and_precision_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sentences()
    assert sum(bool(row.labels) for row in rows) >= 600
    found, faults = scores(rows, finder().found, PATTERNS)
    with capsys.disabled():
        print("\n" + table(found))
    for kind, score in found.items():
        assert score.labelled >= 20, kind
        assert score.recall >= 0.95, (kind, faults)
        assert score.precision >= 0.90, (kind, faults)


def alone(text: str) -> set[str]:
    """Kinds of which the recogniser finds something in the whole text, with no pre-filter before it."""
    found = recognisers.engine().analyze(text, "en", entities=PATTERNS, score_threshold=0.01)
    kinds = {one.entity_type for one in found} - {"PHONE", "SECRET"}
    return kinds | ({"PHONE"} if phones(text) else set()) | ({"SECRET"} if any_secret(text) else set())


def phones(text: str) -> bool:
    """As `recognisers.Phone` finds them, but in the whole text rather than where digits stand together."""
    whole = recognisers.Phone(supported_regions=recognisers.REGIONS)
    return any(True for _ in whole.within(text))


def any_secret(text: str) -> bool:
    lines = text.splitlines(keepends=True)
    return bool(
        secrets.KEY_BLOCK.search(text)
        or any(
            next(iter(secrets.tokens(line, EVERY)), None) or next(iter(secrets.assigned(line, EVERY)), None)
            for line in lines
        )
    )


@pytest.mark.parametrize("part", range(4))
def test_the_pre_filter_lets_through_what_any_recogniser_finds(part: int) -> None:
    texts = [row.text for row in sentences()] + [str(row["text"]) for row in TICKETS]
    for text in texts[part::4]:
        assert alone(text) <= set(kinds_possible(text)), text


LABELLED = [row for row in sentences() if row.labels]
ODD = st.text(st.sampled_from(" -./:()+,_xſK\u00a0\n\t٣３é#'\""), max_size=4)


@st.composite
def texts_like(draw: st.DrawFn, change: bool) -> str:
    """A labelled sentence with odd characters around its values and, if wanted, other digits and letters in them."""
    return draw(like(draw(st.sampled_from(LABELLED)), change))


@st.composite
def like(draw: st.DrawFn, row: Sentence, change: bool = True) -> str:
    _, start, end = row.labels[0]
    value = row.text[start:end]
    if change:
        value = "".join(draw(_other(c)) for c in value)
    return row.text[:start] + draw(ODD) + value + draw(ODD) + row.text[end:]


def _other(char: str) -> st.SearchStrategy[str]:
    if char.isdigit():
        return st.sampled_from("0123456789" + char * 10)
    if char.isalpha():
        return st.sampled_from("AbZx" + char * 12)
    return st.sampled_from(char * 12 + " -.")


@settings(max_examples=150, deadline=None)
@given(text=texts_like(change=False))
def test_the_pre_filter_misses_nothing_among_odd_characters(text: str) -> None:
    assert alone(text) <= set(kinds_possible(text))


PIECES = (
    '\x1c \x0b -. :: 00:1a:2b: 10.0.0.1 key= pwd: is secret "; == PRIVATE xox _authToken= AKC0123456789 ghp_ sk- pw '
    "AP9abcdefgh0 aB3dE5gH7jK9mN1pQ3sT hooks. 14 12a, 5/7 Main Street avenue maple Via C/ str. weg 12345 O box GB12 "
    "A1 B2C 123456 7-A 12-34-56 +1 (0) 555-0100 x9 @ :// SSN passport number 3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"
).split(" ")
NOT_ASCII = "é٣ſKİ\u00a0—ー×²Ａ"
SCRAPS = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=127), max_size=3),
    max_size=12,
).flatmap(lambda parts: st.sampled_from([" ".join(parts), "".join(parts)]))


@settings(max_examples=500, deadline=None)
@given(text=SCRAPS | texts_like(change=True).filter(str.isascii))
@example('the secret hunter2";')
def test_the_automaton_says_what_the_tests_say(text: str) -> None:
    assert kinds_possible(text) == prefilter.kinds_possible(text)


@settings(max_examples=500, deadline=None)
@given(
    text=st.tuples(SCRAPS, texts_like(change=True), st.text(max_size=6), st.sampled_from(NOT_ASCII)).map(
        "".join
    )
)
@example("via Ñuñoa 14 — 1①2 Straße 3")
@example("NRIC: A0000000A×")
def test_of_texts_not_in_ascii_the_automaton_says_no_less(text: str) -> None:
    assert set(prefilter.kinds_possible(text)) <= set(kinds_possible(text))


@settings(max_examples=300, deadline=None)
@given(text=texts_like(change=True) | SCRAPS)
@example("AccountKey=" + "a1B2" * 22)
@example("glagent-" + "aB3_" * 13)
@example("my_secret_key = 'hunter 2 or so';")
@example("'hunter2' == db_password")
def test_an_expression_that_finds_a_secret_is_asked(text: str) -> None:
    expressions = [*(one for _, one in secrets._expressions()), *secrets._quoted()]
    for line in text.splitlines(keepends=True):
        found = {place for place, one in enumerate(expressions) if one.search(line)}
        assert found <= set(secrets._possible(line)), line


@settings(max_examples=300, deadline=None)
@given(text=st.sampled_from([row for row in LABELLED if row.labels[0][0] == "ADDRESS"]).flatmap(like))
def test_what_is_asked_before_a_pattern_of_addresses_is_found_wherever_it_is(text: str) -> None:
    for name, pattern in addresses.PATTERNS.items():
        if regex.search(pattern, text, flags=regex.MULTILINE):
            assert regex.search(addresses.NEEDED[name], text), (name, text)
            assert list(addresses.PATTERNS).index(name) in matching._asked("ADDRESS", text, 8), (name, text)


@settings(max_examples=300, deadline=None)
@given(text=texts_like(change=True))
def test_the_pre_filter_is_laxer_than_every_pattern(text: str) -> None:
    """Whether check digits are right or not; of kinds that need a word, where there is one."""
    possible = set(kinds_possible(text))
    for recogniser in recognisers.engine().registry.recognizers:
        (kind,) = recogniser.supported_entities
        named = KINDS[kind].named
        if kind in ("PHONE", "IBAN", "SECRET") or (
            KINDS[kind].needs == "always" and not (named and named.search(text))
        ):
            continue
        for pattern in recogniser.patterns:
            flags = recogniser.global_regex_flags
            for match in regex.finditer(pattern.regex, text, flags=flags):
                digits = any(c.isdigit() for c in match[0])
                assert kind in possible or not digits, (kind, match[0])


@settings(max_examples=200, deadline=None)
@given(text=texts_like(change=True))
def test_the_pre_filter_misses_no_secret_and_no_phone(text: str) -> None:
    possible = kinds_possible(text)
    assert "SECRET" in possible or not any_secret(text)
    assert "PHONE" in possible or not phones(text)


def test_phones_are_found_where_digits_stand_together_as_in_the_whole_text() -> None:
    one = recognisers.Phone(supported_regions=recognisers.REGIONS)
    for row in sentences():
        whole = {found.end for found, _ in one.within(row.text)}
        assert {result.end for result in one.analyze(row.text, [])} == whole, row.text


def test_check_digits_decide_on_cards_and_accounts() -> None:
    """One digit more, in any place, and nothing is found any more."""
    for kind in ("CARD", "IBAN"):
        for row in LABELLED:
            for of, start, end in row.labels:
                last = row.text[end - 1]
                if of == kind and last.isdigit():
                    wrong = row.text[: end - 1] + str((int(last) + 1) % 10) + row.text[end:]
                    overlapping = [
                        f for f in finder().found(wrong) if f.kind == kind and f.start < end and f.end > start
                    ]
                    assert not overlapping, wrong


@settings(max_examples=150, deadline=None)
@given(text=texts_like(change=True), more=st.text("0123456789 -./()+x", max_size=24))
def test_no_region_is_left_out_in_which_there_is_a_phone_number(text: str, more: str) -> None:
    for one in (text, more):
        possible = {least: regions_possible(one, recognisers.REGIONS, least) for least in (0, 7)}
        for region in recognisers.REGIONS:
            plain = list(phonenumbers.PhoneNumberMatcher(one, region, leniency=STRICT))
            most = max((len(str(found.number.national_number)) for found in plain), default=-1)
            assert all(region in possible[least] or most < least for least in possible), (one, region)
            assert list(Matcher(one, region)) == plain


def test_what_the_recognisers_find_is_what_presidio_s_engine_finds() -> None:
    for row in sentences():
        kinds = kinds_possible(row.text)
        if kinds:
            engine = recognisers.engine().analyze(row.text, "en", entities=kinds, score_threshold=0.4)
            ours = recognisers.findings(row.text, kinds, 0.4)
            assert {(r.start, r.end, r.entity_type, r.score) for r in engine} == {
                (r.start, r.end, r.entity_type, r.score) for r in ours
            }
