"""The kinds of personal data that scrubbing looks for: what each is, what finds it, and how its findings are checked.

Most numbers of states are digits with a check digit, which one in ten order numbers satisfies by chance. Such a number
counts only where a word nearby says what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import regex

Needs = Literal["nothing", "for digits", "always"]
PERSON = "PERSON"


@dataclass(frozen=True)
class Kind:
    """check: what a finding's characters are checked by; empty: its form alone. words: those that name such a thing.

    needs: which findings count only with one of `words` nearby: none, those of digits without separators, or all.
    not_after: what a finding is not, when it stands right before it.
    """

    name: str
    what: str
    by: str
    check: str = ""
    words: tuple[str, ...] = ()
    needs: Needs = "nothing"
    not_after: str = ""

    @cached_property
    def named(self) -> regex.Pattern[str] | None:
        """Finds one of the words."""
        if not self.words:
            return None
        return regex.compile(rf"\b(?:{'|'.join(map(regex.escape, self.words))})\b", regex.IGNORECASE)

    @cached_property
    def other(self) -> regex.Pattern[str] | None:
        """Finds, at the end of what stands before, that it is something else."""
        return regex.compile(rf"(?:{self.not_after})$", regex.IGNORECASE) if self.not_after else None


_ORDER = (
    r"\b(?:order|invoice|ticket|reference|ref|case|tracking|transaction|serial|part|sku|isbn|item|batch|lot|booking|"
    r"parcel|shipment|model|barcode|imei|build|commit|row|id)(?:s|ed)?\b\W{0,3}(?:(?:no|number|nr|id|code)\b\W{0,3})?"
    r"(?:(?:is|was|of)\b\W{0,2})?"
)
_VERSION = r"\b(?:version|versions|ver|release|build|firmware|driver|section|chapter|clause|rev|v)\b\W{0,2}"
_PHONE = (
    "phone telephone tel cell cellphone mobile call called calling text whatsapp fax ring dial sms contact reach "
    "hotline telefon handy rufnummer nummer anrufen ruf tél téléphone portable numéro appelez "
    "appeler teléfono móvil llame llámame cellulare telefono chiamare"
).split()

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("EMAIL", "e-mail addresses", "Presidio EmailRecognizer", "public suffix list"),
        Kind(
            "PHONE",
            "phone numbers, international or as eleven countries write them",
            "Presidio PhoneRecognizer",
            "phonenumbers: valid in its region",
            tuple(_PHONE),
            "for digits",
            _ORDER,
        ),
        Kind("CARD", "payment cards", "Presidio CreditCardRecognizer", "Luhn, issuer's range"),
        Kind("IBAN", "bank accounts", "Presidio IbanRecognizer", "mod 97, length of its country"),
        Kind("URL_LOGIN", "name and password in a URL", "pattern"),
        Kind("IP", "IPv4 and IPv6 addresses", "Presidio IpRecognizer", "ipaddress", not_after=_VERSION),
        Kind("MAC", "hardware addresses", "Presidio MacAddressRecognizer"),
        Kind("CRYPTO", "Bitcoin and Ethereum wallets", "Presidio CryptoRecognizer", "Base58, Bech32"),
        Kind("ADDRESS", "street addresses (English, German, French, Spanish, Italian, Dutch)", "pattern"),
        Kind(
            "SECRET", "API keys, tokens, private keys, passwords in assignments", "detect-secrets, patterns"
        ),
        Kind(
            "SSN",
            "US social security numbers",
            "Presidio UsSsnRecognizer",
            "groups that are issued",
            ("ssn", "ssns", "social", "social security"),
            "for digits",
        ),
        Kind(
            "CA_SIN",
            "Canadian social insurance numbers",
            "Presidio CaSinRecognizer",
            "Luhn",
            ("sin", "social insurance", "nas", "assurance sociale"),
            "always",
        ),
        Kind(
            "UK_NHS",
            "UK National Health Service numbers",
            "Presidio NhsRecognizer",
            "mod 11",
            ("nhs", "national health service", "health service number"),
            "always",
        ),
        Kind("UK_NINO", "UK national insurance numbers", "Presidio UkNinoRecognizer", "prefixes in use"),
        Kind("ES_NIF", "Spanish tax numbers of citizens", "Presidio EsNifRecognizer", "mod 23"),
        Kind("ES_NIE", "Spanish numbers of foreigners", "Presidio EsNieRecognizer", "mod 23"),
        Kind("IT_FISCAL_CODE", "Italian tax codes", "Presidio ItFiscalCodeRecognizer", "check letter"),
        Kind(
            "DE_TAX_ID",
            "German tax identification numbers",
            "Presidio DeTaxIdRecognizer",
            "ISO 7064 mod 11, 10",
            (
                "steueridentifikationsnummer",
                "steuer-id",
                "steuerid",
                "steuer-idnr",
                "idnr",
                "identifikationsnummer",
                "tax id",
                "tax identification number",
            ),
            "always",
        ),
        Kind(
            "PL_PESEL",
            "Polish PESEL numbers",
            "Presidio PlPeselRecognizer",
            "date, mod 10",
            ("pesel",),
            "always",
        ),
        Kind(
            "FI_HETU", "Finnish identity codes", "Presidio FiPersonalIdentityCodeRecognizer", "date, mod 31"
        ),
        Kind(
            "SE_PERSONNUMMER",
            "Swedish identity numbers",
            "Presidio SePersonnummerRecognizer",
            "date, Luhn",
            ("personnummer", "samordningsnummer", "personal identity number"),
            "for digits",
            _ORDER,
        ),
        Kind(
            "TR_ID",
            "Turkish identity numbers",
            "Presidio TrNationalIdRecognizer",
            "two check digits",
            ("tc kimlik", "kimlik", "tckn", "tc no", "turkish id", "national id"),
            "always",
        ),
        Kind(
            "IN_AADHAAR",
            "Indian Aadhaar numbers",
            "Presidio InAadhaarRecognizer",
            "Verhoeff",
            ("aadhaar", "aadhar", "uidai", "uid"),
            "always",
        ),
        Kind("IN_PAN", "Indian tax numbers", "Presidio InPanRecognizer", "letter of the holder's kind"),
        Kind(
            "AU_TFN",
            "Australian tax file numbers",
            "Presidio AuTfnRecognizer",
            "mod 11",
            ("tfn", "tax file number"),
            "always",
        ),
        Kind(
            "AU_ABN",
            "Australian business numbers",
            "Presidio AuAbnRecognizer",
            "mod 89",
            ("abn", "australian business number"),
            "always",
        ),
        Kind("SG_NRIC", "Singaporean identity numbers", "Presidio SgFinRecognizer", "check letter"),
        Kind(PERSON, "names of people", "a run of method.type=tag that scrub.names_model names"),
    )
}
"""By name, in the order in which findings of the same place, length and score are preferred."""
