"""Read the values of cells as spreadsheet programs write them, and recognize those that are no values. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from voicequeue.domain.url_faults import describe_fault, is_placeholder
from voicequeue.texts import parse_float

_YES = "true yes on y t 1 1.0 ja wahr oui vrai si sí sì verdadero vero x ✓ ✔ ☑"
_NO = "false no off n f 0 0.0 nein falsch non faux falso ☐"

#: Words for true and false in spreadsheets in English, German, French, Spanish and Italian.
_BOOLEANS = dict.fromkeys(_YES.split(), "true") | dict.fromkeys(_NO.split(), "false")

_GENDERS = {"female": "f", "male": "m"}

#: Digits in groups of three, with spaces or apostrophes: "12 000". Commas and points are ambiguous.
_GROUPS = re.compile(r"[+-]?\d{1,3}([ \u00a0\u202f'’]\d{3})+(?=[.,]\d+$|$)", re.ASCII)
_GROUP_SIGN = re.compile(r"[ \u00a0\u202f'’]")

_DECIMAL_COMMA = re.compile(r"([+-]?\d*),(\d+)", re.ASCII)
#: A decimal sign, or one between groups of digits: "1,000" may be a thousand, "0,500" may not.
_COMMA_OR_GROUP = re.compile(r"([+-]?[1-9]\d{0,2}),(\d{3})", re.ASCII)
_POINT_OR_GROUP = re.compile(r"([+-]?[1-9]\d{0,2})\.(\d{3})", re.ASCII)
_PERCENT = re.compile(r"(.*?)[ \u00a0\u202f]?%")
_WHOLE = re.compile(r"([+-]?\d+)\.0+", re.ASCII)

#: Errors that spreadsheet programs write instead of a value, in the languages of Excel. Source: Microsoft's list of
#: error values, LibreOffice and Google Sheets.
_ERRORS_BY_LANGUAGE = {
    "English": "#N/A #REF! #VALUE! #NAME? #DIV/0! #NUM! #NULL! #SPILL! #CALC! #FIELD! "
    "#BUSY! #BLOCKED! #CONNECT! #UNKNOWN! #GETTING_DATA #EXTERNAL! #PYTHON! #TIMEOUT! #ERROR!",
    "German": "#NV #BEZUG! #WERT! #ZAHL! #ÜBERLAUF! #KALK! #FELD! #BLOCKIERT!",
    "French": "#VALEUR! #NOM? #NOMBRE! #NUL! #PROPAGATION! #EPARS! #ÉPARS! #CHAMP!",
    "Spanish": "#N/D #¡REF! #¡VALOR! #¿NOMBRE? #¡DIV/0! #¡NUM! #¡NULO! #¡DESBORDAMIENTO! #¡CALC! #¡CAMPO!",
    "Italian": "#RIF! #VALORE! #NOME? #NULLO! #ESPANSIONE! #CALCOLO! #CAMPO!",
    "Portuguese": "#VALOR! #NÚM! #NULO! #DESPEJAR!",
    "Dutch": "#N/B #VERW! #WAARDE! #NAAM? #DEEL/0! #GETAL! #LEEG! #OVERLOOP!",
    "Polish": "#N/D! #ADR! #ARG! #NAZWA? #DZIEL/0! #LICZBA! #ZERO! #ROZLANIE!",
    "Swedish": "#SAKNAS! #REFERENS! #VÄRDEFEL! #NAMN? #DIVISION/0! #OGILTIGT! #SKÄRNING!",
    "Norwegian, Danish": "#I/T #VERDI! #NAVN? #REFERENCE! #VÆRDI!",
    "Russian": "#Н/Д #ССЫЛКА! #ЗНАЧ! #ИМЯ? #ДЕЛ/0! #ЧИСЛО! #ПУСТО!",
    "Turkish": "#YOK #BAŞV! #DEĞER! #AD? #SAYI/0! #SAYI! #BOŞ!",
}
_ERRORS = frozenset(" ".join(_ERRORS_BY_LANGUAGE.values()).split())
_ERROR = re.compile(r"#{3,}|Err:\d{3}")

_SHOWN = 40

#: A number as a spreadsheet program shortens it: its last digits are lost.
_ROUNDED = re.compile(r"\d([.,]\d+)?[eE]\+\d+", re.ASCII)
_EXACT_DIGITS = 15

_LINK_TEXT = re.compile(r"\w[\w ,.!'()\u00a0\u2019-]{0,39}")


class NumberText(str):
    """The text of a cell that holds a number, so that its sign of decimals is certain."""

    __slots__ = ()

    def strip(self, _chars: str | None = None, /) -> NumberText:
        """Return the text: there are no spaces around it."""
        return self


_FORMULA = re.compile(r"=(?!=)")


_WORDS = ("title", "prompt", "description", "tags", "negative_tags")
_NAMES = ("name", "voice", "key", "persona_id")

#: Fields whose texts are ordered, paid or shared as they are. A placeholder in them is never meant.
TEXT_FIELDS = frozenset((*_WORDS, *_NAMES))


def error_in(text: str) -> str:
    """Return why a cell is a spreadsheet error; '' if it is none."""
    if not text or text[0] not in "#E" or not all(map(_is_error, text.split())):
        return ""
    if text.startswith("###"):
        return f"is {text[:12]!r}, which a spreadsheet program shows where a column is too narrow; enter the value"
    return f"is the spreadsheet error {text.split(maxsplit=1)[0]}; correct its formula, or clear the cell"


def _is_error(word: str) -> bool:
    return word.upper() in _ERRORS or _ERROR.fullmatch(word) is not None


def invalid_cell(text: str) -> str:
    """Return why a cell of a table is no value: a spreadsheet error or a formula; '' if it is one."""
    if _FORMULA.match(text):
        return (
            f"is a formula ({text[:20]!r}) without its result; open the original in Excel, save it, and ingest it "
            "again, or replace the formulas: copy the column, and paste it as values"
            if len(text) > 1
            else "is '=' without a value; enter the value, or clear the cell"
        )
    return error_in(text)


#: The first characters of cells that `invalid_cell` may reject.
SUSPECT = frozenset("=#E")


#: The levels of a job in JSON: its fields, its songs, a song, the fields of a song.
_JOB_LEVELS = 4


def json_errors(value: Any, path: str = "", levels: int = _JOB_LEVELS) -> list[str]:
    """Return the spreadsheet errors and placeholders in the texts of a job in JSON, with their fields."""
    if isinstance(value, str):
        text = value.strip()
        error = error_in(text) or ("" if path.startswith("metadata") else _missing(path.rpartition(".")[2], text))
        return [f"{path}: {error}"] if error else []
    children: Iterable[tuple[Any, Any]] = ()
    if levels and isinstance(value, Mapping):
        children = value.items()
    elif levels and isinstance(value, list):
        children = enumerate(value)
    prefix = f"{path}." if path else ""
    return [error for name, child in children for error in json_errors(child, f"{prefix}{name}", levels - 1)]


def _missing(field: str, text: str) -> str:
    """Return why a text of a field is only a placeholder; '' if it is not."""
    return _placeholder(text) if text and field in TEXT_FIELDS and is_placeholder(text) else ""


def _placeholder(text: str) -> str:
    return f"is {text[:_SHOWN]!r}, a placeholder; clear the cell, or enter the value"


# ── values by the type of their column ─────────────────────────────────────────────────────────────


def _boolean(text: str) -> str:
    value = _BOOLEANS.get(_unmarked(text).casefold())
    if value is None:
        raise ValueError("must be yes or no, or blank")
    return value


def _word(text: str) -> str:
    word = _unmarked(text).casefold()
    return _GENDERS.get(word, word)


def _integer(text: str) -> str:
    number = _seconds(text)
    whole = _WHOLE.fullmatch(number)
    if whole is None and not number.lstrip("+-").isdecimal():
        raise ValueError(f"is {text[:_SHOWN]!r}, not a whole number; write it in plain digits, such as 20")
    return whole[1] if whole else number


def _seconds(text: str) -> str:
    if not isinstance(text, NumberText):
        _check_group(_POINT_OR_GROUP, _unmarked(text))
    return _number(text)


def _weight(text: str) -> str:
    percent = _PERCENT.fullmatch(_unmarked(text))
    number = _number(percent[1] if percent else text)
    value = float(number) / 100 if percent else float(number)
    if not 0 <= value <= 1:
        cure = (
            f"write {value / 100:.15g} or {value:.15g} %"
            if 1 < value <= 100 and not percent
            else "0 to 1, or 0 % to 100 %, is allowed"
        )
        raise ValueError(f"is {text[:_SHOWN]}; {cure}")
    return format(value, ".15g") if percent else number


def _number(text: str) -> str:
    """Return a number with a point and without groups. Raises ValueError if it is none, or not certain."""
    number = _unmarked(text)
    _check_group(_COMMA_OR_GROUP, number)
    if _GROUPS.match(number):
        number = _GROUP_SIGN.sub("", number).replace(",", ".")
    elif comma := _DECIMAL_COMMA.fullmatch(number):
        number = f"{comma[1]}.{comma[2]}"
    if parse_float(number) is None:
        raise ValueError(f"is {text[:_SHOWN]!r}, not a number; write it in plain digits, such as 20 or 0.5")
    return number


def _check_group(ambiguous: re.Pattern[str], number: str) -> None:
    if match := ambiguous.fullmatch(number):
        small, large = f"{match[1]}.{match[2]}".rstrip("0").rstrip("."), f"{match[1]}{match[2]}"
        raise ValueError(f"is {number!r}, which may be {small} or {large}; write {small} or {large}")


def _words(text: str) -> str:
    """Return a text. Raises ValueError if it is a placeholder."""
    if is_placeholder(text):
        raise ValueError(_placeholder(text))
    return text


def _name(text: str) -> str:
    """Return a name or an id. Raises ValueError also if it is a number that lost digits."""
    if "+" in text and _ROUNDED.fullmatch(text):
        raise ValueError(_rounded(text))
    if isinstance(text, NumberText):
        if len(text.lstrip("+-")) > _EXACT_DIGITS:
            raise ValueError(_rounded(text))
        return str(text)
    return _words(text)


def _rounded(text: str) -> str:
    return (
        f"is the number {text[:_SHOWN]}, of which the spreadsheet program keeps {_EXACT_DIGITS} digits only; "
        "format the column as text, and enter the value again"
    )


def _link(text: str) -> str:
    """Return a link. Raises ValueError if it is words, such as the text that Excel shows for a link."""
    if "://" not in text and _LINK_TEXT.fullmatch(text) and describe_fault(text).endswith("URL"):
        raise ValueError(
            f"{describe_fault(text)}, not {text!r}: a cell must contain the link itself, not a text that opens it"
        )
    return text


def _unmarked(text: str) -> str:
    """Return a cell without the apostrophe that marks it as text in Excel."""
    return text.removeprefix("'").strip()


_BY_TYPE: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("reuse", "custom_mode", "make_instrumental", "auto_lyrics"), _boolean),
    **dict.fromkeys(("style_weight", "weirdness_constraint", "audio_weight"), _weight),
    **dict.fromkeys(("priority", "vocal_gender", "audio_sha256"), _word),
    "audio_url": _link,
    "start_within_s": _seconds,
    "max_credits": _integer,
    **dict.fromkeys(_WORDS, _words),
    **dict.fromkeys(_NAMES, _name),
}


def converter(field: str) -> Callable[[str], str] | None:
    """Return the function that reads the cells of a column; None for a column of text. It may raise ValueError."""
    return _BY_TYPE.get(field)
