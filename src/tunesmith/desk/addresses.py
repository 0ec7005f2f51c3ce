"""Patterns of street addresses, and the words of which every address has one.

A name of a street is told from other words by its capitals; in lower case only one word and an unmistakable kind of
street count (`14 maple street`).
"""

from __future__ import annotations

import re

_NAME = r"(?:[A-Z][\w'’.-]*|\d{1,3}(?:st|nd|rd|th))"
_KIND = (
    "Street St Avenue Ave Road Rd Lane Ln Drive Dr Boulevard Blvd Court Ct Place Pl Square Sq Terrace Way Close "
    "Crescent Cres Parkway Pkwy Highway Hwy Circle Cir Gardens Grove Hill Row Mews Walk Broadway Quay Embankment"
).split()
_UNIT = r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|Room|#)\.?\s?#?\w{1,5}\b)"
_CITY = r"(?:,\s[A-Z][\w'’-]+(?:\s[A-Z][\w'’-]+){0,2})"
_CODE = r"(?:,?\s(?:[A-Z]{2}\s\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|[A-Z]{2,3}\s\d{4})\b)"
_UNITS_OF_TIME = (
    r"(?!(?:minute|min|hour|hr|day|week|mile|km|meter|metre|foot|lane|way|one|two|inch|year)s?\b)"
)
_TOWN = r"(?:,?\s\d{4,5}\s?(?:[A-Z]{2}\s)?[A-ZÀ-Þ][\wÀ-ÿ'’-]+)?"
_WORD = r"(?:(?:d'|l'|dell')?[A-ZÀ-Þ][\wÀ-ÿ'’-]*|\d{1,2}|de|la|le|les|du|des|del|della|dei|los|las|y|et)\b"
_PLACE = rf"{_WORD}(?:\s{_WORD}){{0,4}}"

_YEAR = r"(?!(?<=\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Bb]y|[Oo]f|[Tt]he)\s)(?:19|20)\d\d\b)"

PATTERNS: dict[str, str] = {
    "English": rf"(?<![\d.,$€£#-])\b{_YEAR}\d{{1,5}}[A-Za-z]?(?:[-/]\d{{1,4}})?,?\s"
    r"(?:[NSEW]{1,2}\.?\s|(?:North|South|East|West)\s)?"
    rf"(?:{_NAME}\s){{1,4}}(?:{'|'.join(_KIND)})\b\.?{_UNIT}?(?:{_CITY}?{_CODE}|{_CITY})?",
    "English, in lower case": rf"(?<![\d.,$€£#-])\b\d{{1,5}}[a-z]?\s{_UNITS_OF_TIME}[a-z]{{3,}}\s"
    r"(?:street|avenue|road|lane|boulevard|crescent)\b",
    "post box": r"\b(?:P\.?\s?O\.?\s?[Bb]ox|Postfach|[Bb]o[iî]te [Pp]ostale|Apartado)\s\d[\d ]{0,6}\d\b|"
    r"\bP\.?\s?O\.?\s?Box\s\d\b",
    "German": r"\b(?:[A-ZÄÖÜ][\wäöüß-]*\s|[A-ZÄÖÜ][\wäöüß]*-)?"
    r"(?:[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|str\.|weg|platz|allee|gasse|damm|ufer)|Straße|Strasse|Str\.|Platz|Allee)"
    rf"\s\d{{1,4}}\s?[a-h]?\b{_TOWN}",
    "before a post code": r"\b(?:[A-ZÄÖÜ][\wäöüß.-]*\s){1,3}\d{1,4}\s?[a-h]?,\s\d{5}\s[A-ZÄÖÜ][\wäöüß-]+",
    "Dutch": rf"\b[A-Z][\w-]*(?:straat|laan|gracht|plein|kade|singel|dijk)\s\d{{1,4}}(?:[a-z]\b|-\d+)?\b{_TOWN}",
    "French": rf"\b\d{{1,4}}(?:\s?(?:bis|ter))?,?\s(?:[Rr]ue|[Aa]venue|[Aa]v\.|[Bb]oulevard|[Bb]d|[Pp]lace|"
    rf"[Cc]hemin|[Aa]llée|[Ii]mpasse|[Qq]uai|[Rr]oute)\s{_PLACE}{_TOWN}",
    "Spanish, Italian": r"\b(?:[Cc]alle|C/|[Aa]venida|Avda\.?|[Pp]laza|[Pp]aseo|[Vv]ia|[Vv]iale|"
    rf"[Pp]iazza|[Cc]orso|Largo)\s{_PLACE},?\s?(?:n\.?º?\s)?\d{{1,4}}\b{_TOWN}",
}

# What is asked first. ---------------------------------------------------------------------------------------

HOUSE_FIRST = re.compile(
    r"\d[A-Za-z]?(?:[-/]\d{1,4})?,?\s(?:[A-Z\d]|[a-z]{3,}\s(?:street|avenue|road|lane|boulevard|crescent))"
)
"""A house number with what may be the name of a street after it."""
KIND_AFTER = re.compile(rf"\s(?:{'|'.join(_KIND)}|street|avenue|road|lane|boulevard|crescent)\b")
"""What such a street is called."""
_SPANISH = "[Cc]alle|C/|[Aa]venida|Avda\\.?|[Pp]laza|[Pp]aseo|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|Largo"
_FRENCH = (
    "[Rr]ue|[Aa]venue|[Aa]v\\.|[Bb]oulevard|[Bb]d|[Pp]lace|[Cc]hemin|[Aa]llée|[Ii]mpasse|[Qq]uai|[Rr]oute"
)
_OTHERS = {
    "post box": r"(?:[Bb]ox|Postfach|[Pp]ostale|Apartado)\s\d",
    "German": r"(?:[Ss]traße|[Ss]trasse|[Ss]tr\.|weg|[Pp]latz|[Aa]llee|gasse|damm|ufer)\s\d",
    "before a post code": r"\d\s?[a-h]?,\s\d{5}\s",
    "Dutch": r"(?:straat|laan|gracht|plein|kade|singel|dijk)\s\d",
    "French": rf"\d(?:\s?(?:bis|ter))?,?\s(?:{_FRENCH})\s",
    "Spanish, Italian": rf"(?:{_SPANISH})\s(?:[A-ZÀ-Þ\d]|d|l|y|et)",
}
OTHER = re.compile("|".join(_OTHERS.values()))
"""One of these stands in every address that is not in English."""
NEEDED = {
    "English": "",
    "English, in lower case": r"[a-z]\s(?:street|avenue|road|lane|boulevard|crescent)\b",
    **_OTHERS,
}
"""Of each pattern an expression that is found wherever it is. Most texts that pass the pre-filter hold the English
one."""
