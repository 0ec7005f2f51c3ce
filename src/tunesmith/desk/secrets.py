"""Secrets in a text: detect-secrets' scanners on each line, and forms that they do not know.

A scanner says what it found, not where, and of some tokens only the beginning: its expressions are searched again, and
what they find goes on to the end of the token. Nothing is asked of the services whose tokens these are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from tunesmith.desk.joined import Joined, laxer
from tunesmith.desk.prefilter import assignments_possible, tokens_possible

_SCANNERS = (
    "artifactory.ArtifactoryDetector aws.AWSKeyDetector azure_storage_key.AzureStorageKeyDetector "
    "cloudant.CloudantDetector discord.DiscordBotTokenDetector github_token.GitHubTokenDetector "
    "gitlab_token.GitLabTokenDetector ibm_cloud_iam.IbmCloudIamDetector ibm_cos_hmac.IbmCosHmacDetector "
    "jwt.JwtTokenDetector mailchimp.MailchimpDetector npm.NpmDetector openai.OpenAIDetector "
    "pypi_token.PypiTokenDetector sendgrid.SendGridDetector slack.SlackDetector softlayer.SoftlayerDetector "
    "square_oauth.SquareOAuthDetector stripe.StripeDetector telegram_token.TelegramBotTokenDetector "
    "twilio.TwilioKeyDetector"
).split()
_VALUE = 16
"""Characters of a group of a scanner's expression from which it is the value, not a prefix."""
_TOKEN_GOES_ON = re.compile(r"[A-Za-z0-9_\-+/=]*(?:\.[A-Za-z0-9_\-+/=]+)*")
KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|PuTTY-User-Key-File-\d.*?(?:Private-MAC:\s*\w+|\Z)",
    re.DOTALL,
)
_MORE_TOKENS = re.compile(
    r"github_pat_\w{22,}|sk-[A-Za-z0-9_-]{24,}|[rsp]k_(?:test|live)_\w{16,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{20,}=*"
)
_NAMED = re.compile(
    r"(?<!//)(?:pass(?:word|wd|code|phrase)?|pwd|secret|(?:api|access|auth|private)[ _-]?key|token)"
    r"[\w\"'\]]{0,12}\s{0,3}(?::=|=>|={1,3}|:|\b(?:is|was)\b(?:\s+now)?:?)\s{0,3}[\"'`]?([^\s\"'`,;<>{}]{6,200})",
    re.IGNORECASE,
)


@cache
def _expressions() -> list[tuple[Any, Any]]:
    """(scanner, one of its expressions)."""
    from importlib import import_module

    found = []
    for name in _SCANNERS:
        module, scanner = name.split(".")
        made = getattr(import_module(f"detect_secrets.plugins.{module}"), scanner)()
        found += [(made, expression) for expression in made.denylist]
    return found


@cache
def _quoted() -> dict[Any, int]:
    """Expression -> its group that is the value."""
    from detect_secrets.plugins.keyword import QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP as QUOTED

    return dict(QUOTED)


@cache
def _joined() -> Joined:
    """Laxer than all of the scanners' expressions and the quoted ones, in their order."""
    all_ = [*(expression for _, expression in _expressions()), *_quoted()]
    return Joined([laxer(one, "['\"`]") for one in all_])


def _possible(line: str) -> Collection[int]:
    """Places of the expressions that may be found in a line."""
    if line.isascii():
        return _joined().found_in(line)
    return range(len(_expressions()) + len(_quoted()))


def spans_of(text: str) -> list[tuple[int, int]]:
    """(start, end) of every secret, in order; some may overlap."""
    found = [match.span() for match in KEY_BLOCK.finditer(text)] if "-" in text else []
    lower = text.lower()
    by_form, by_name = tokens_possible(text, lower), assignments_possible(text, lower)
    if by_form or by_name:
        at = 0
        for line in text.splitlines(keepends=True):
            there = _possible(line)
            spans = [*(tokens(line, there) if by_form else ()), *(assigned(line, there) if by_name else ())]
            found += [(at + start, at + end) for start, end in spans]
            at += len(line)
    return sorted(set(found))


def tokens(line: str, there: Collection[int]) -> Iterator[tuple[int, int]]:
    for place, (scanner, expression) in enumerate(_expressions()):
        for match in expression.finditer(line) if place in there else ():
            start, end = _place(match)
            goes_on = _TOKEN_GOES_ON.match(line, end)
            assert goes_on is not None
            end = goes_on.end()
            whole = line[start:end]
            if (
                any(c.isdigit() for c in whole)
                and any(c.isalpha() for c in whole)
                and any(scanner.analyze_string(line))
            ):
                yield start, end
    for match in _MORE_TOKENS.finditer(line):
        if any(c.isdigit() for c in match[0]):
            yield match.span()


def _place(match: re.Match[str]) -> tuple[int, int]:
    """Of the value, without the name it is given to and the quotes around it."""
    groups = [n for n in range(1, (match.re.groups or 0) + 1) if match[n] and len(match[n]) >= _VALUE]
    start, end = match.span(groups[-1] if groups else 0)
    found = match.string[start:end]
    start += len(found) - len(found.lstrip(' \t\r\n=:"'))
    return start, start + len(found.strip(' \t\r\n=:"'))


def assigned(line: str, there: Collection[int]) -> Iterator[tuple[int, int]]:
    """Values of names such as password and api_key: quoted ones as detect-secrets' KeywordDetector finds them, bare
    ones where letters stand with digits."""
    from detect_secrets.filters import heuristic

    for place, (expression, group) in enumerate(_quoted().items(), len(_expressions())):
        for match in expression.finditer(line) if place in there else ():
            value = match[group]
            if not (
                " " in value.strip()
                or heuristic.is_templated_secret(value)
                or heuristic.is_prefixed_with_dollar_sign(value)
                or heuristic.is_not_alphanumeric_string(value)
                or len(value) < 4
            ):
                yield match.span(group)
    for match in _NAMED.finditer(line):
        value = match[1].rstrip(".?)]")
        plain = value.strip("*•.…xX") == ""
        if (
            not plain
            and any(c.isdigit() for c in value)
            and any(c.isalpha() for c in value)
            and "://" not in value
        ):
            yield match.start(1), match.start(1) + len(value)
