"""What stands in the place of personal data: the kind, a keyed hash, or an invented value of the same kind.

Equal values get equal stand-ins, also where they are written differently (`4111-1111…`, `4111 1111…`), so rows that
speak of one person still do. Invented values lie where nobody's can: example.org, telephone numbers kept for fiction,
card numbers kept for tests, networks kept for documentation.
"""

from __future__ import annotations

import hmac
import os
import random
import string
from collections.abc import Callable
from hashlib import sha256

from tunesmith.config.desk import Scrub
from tunesmith.desk.kinds import PERSON
from tunesmith.errors import ConfigError

LEAST_KEY = 16
HASH_DIGITS = 16
_FIRST = "Ada Ben Clara Dario Edda Finn Greta Hugo Ines Jonas Karla Leon Mara Nils Olga Pablo Rosa Sven Tilda".split()
_LAST = "Abel Brandt Costa Dahl Eriksen Fuchs Garner Holt Iversen Jansen Kruse Lund Moreau Novak Orsini Pohl".split()
_TREES = "Alder Aspen Beech Birch Cedar Elm Hazel Juniper Larch Linden Maple Oak Poplar Rowan Spruce Willow".split()
_AREAS = (
    "202",
    "303",
    "404",
    "505",
    "606",
    "707",
    "808",
    "212",
    "312",
    "412",
    "512",
    "612",
    "713",
    "814",
    "916",
)
_SEPARATORS = str.maketrans("", "", " \t\n\u00a0-./()")
_WRITTEN_AS_LIKED = ("EMAIL", "ADDRESS", "SECRET", "URL_LOGIN", "CRYPTO", "IP", PERSON)
"""Kinds in which blanks and hyphens are part of the value."""

StandIn = Callable[[str, str], str]
"""(kind, what stood there) -> what stands there now. A pure function."""


def stand_in(config: Scrub) -> StandIn:
    """As `config.how` says. Raises ConfigError where the key's environment variable holds none that will do."""
    if config.how == "mask":
        return lambda kind, text: f"<{kind}>"
    key = _key(str(config.key))
    if config.how == "hash":
        return lambda kind, text: f"<{kind}:{_digest(key, kind, text).hex()[:HASH_DIGITS]}>"
    return lambda kind, text: _invented(kind, text, random.Random(_digest(key, kind, text)))


def _key(name: str) -> bytes:
    value = os.environ.get(name, "")
    if len(value) < LEAST_KEY:
        raise ConfigError(
            f"the environment variable {name} (scrub.key) holds {len(value)} characters",
            f"a secret of at least {LEAST_KEY}",
            f"{name}=$(openssl rand -hex 32), kept where the scrubbed rows are not",
        )
    return value.encode()


def _digest(key: bytes, kind: str, text: str) -> bytes:
    same = text if kind in ("SECRET", "CRYPTO", "URL_LOGIN") else text.casefold()
    if kind not in _WRITTEN_AS_LIKED:
        same = same.translate(_SEPARATORS)
    return hmac.new(key, f"{kind}\0{same}".encode("utf-8", "surrogatepass"), sha256).digest()


def _invented(kind: str, text: str, draw: random.Random) -> str:
    made = _MADE.get(kind)
    return made(text, draw) if made is not None else _same_shape(text, draw)


def _same_shape(text: str, draw: random.Random) -> str:
    """Digits for digits, letters for letters, all else as it is."""
    return "".join(
        draw.choice(string.digits)
        if c.isdigit()
        else draw.choice(string.ascii_uppercase if c.isupper() else string.ascii_lowercase)
        if c.isalpha()
        else c
        for c in text
    )


def _with_digits(text: str, digits: str) -> str:
    """The text with these in place of its digits, one for one."""
    left = iter(digits)
    return "".join(next(left) if c.isdigit() else c for c in text)


def _email(text: str, draw: random.Random) -> str:
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    return f"{first}.{last}.{draw.getrandbits(32):08x}@example.org".lower()


def _phone(text: str, draw: random.Random) -> str:
    return f"+1-{draw.choice(_AREAS)}-555-01{draw.randrange(100):02d}"


def _card(text: str, draw: random.Random) -> str:
    """Of the same length, from a range of test numbers (4000 00…), with its check digit."""
    length = sum(c.isdigit() for c in text)
    digits = "400000" + "".join(draw.choice(string.digits) for _ in range(length - 7))
    doubled = (int(d) * (2 - at % 2) for at, d in enumerate(reversed(digits)))
    return _with_digits(text, digits + str(-sum(d - 9 * (d > 9) for d in doubled) % 10))


def _iban(text: str, draw: random.Random) -> str:
    """Of the same country and shape, with its check digits."""
    inner = _same_shape("".join(c for c in text if c.isalnum())[4:].upper(), draw)
    country = text[:2].upper()
    check = 98 - int("".join(str(int(c, 36)) for c in f"{inner}{country}00")) % 97
    left = iter(f"{country}{check:02d}{inner}")
    return "".join(next(left) if c.isalnum() else c for c in text)


def _ssn(text: str, draw: random.Random) -> str:
    """With group 00, which is never issued."""
    return _with_digits(text, f"{draw.randrange(1, 900):03d}00{draw.randrange(1, 10_000):04d}")


def _ip(text: str, draw: random.Random) -> str:
    if ":" in text:
        return "2001:db8::" + ":".join(f"{draw.getrandbits(16):x}" for _ in range(4))
    return f"{draw.choice(('192.0.2', '198.51.100', '203.0.113'))}.{draw.randrange(1, 255)}"


def _mac(text: str, draw: random.Random) -> str:
    """Locally administered, so no maker's."""
    left = iter("02" + "".join(draw.choice("0123456789abcdef") for _ in range(10)))
    return "".join(next(left) if c.isalnum() else c for c in text)


def _address(text: str, draw: random.Random) -> str:
    return (
        f"{draw.randrange(1, 1000)} {draw.choice(_TREES)} {draw.choice(('Street', 'Road', 'Lane', 'Avenue'))}"
    )


def _person(text: str, draw: random.Random) -> str:
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    return f"{first} {last}" if " " in text.strip() else first


_MADE: dict[str, Callable[[str, random.Random], str]] = {
    "EMAIL": _email,
    "PHONE": _phone,
    "CARD": _card,
    "IBAN": _iban,
    "SSN": _ssn,
    "IP": _ip,
    "MAC": _mac,
    "ADDRESS": _address,
    PERSON: _person,
}
