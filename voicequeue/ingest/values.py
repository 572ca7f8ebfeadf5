"""Read the values of cells as spreadsheet programs write them, and recognize those that are no values. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_YES = "true yes on y t 1 1.0 ja wahr oui vrai si sí sì verdadero vero x ✓ ✔ ☑"
_NO = "false no off n f 0 0.0 nein falsch non faux falso ☐"

#: Words for true and false in spreadsheets in English, German, French, Spanish and Italian.
_BOOLEANS = dict.fromkeys(_YES.split(), "true") | dict.fromkeys(_NO.split(), "false")

_GENDERS = {"female": "f", "male": "m"}

#: Digits in groups of three, with spaces or apostrophes: "12 000". Commas and points are ambiguous.
_GROUPS = re.compile(r"[+-]?\d{1,3}([ \u00a0\u202f'’]\d{3})+(?=[.,]\d+$|$)", re.ASCII)
_GROUP_SIGN = re.compile(r"[ \u00a0\u202f'’]")

#: A decimal comma. "1,000" may be a thousand, "0,500" may not.
_DECIMAL_COMMA = re.compile(r"([+-]?)(\d*),(\d+)", re.ASCII)
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

_FORMULA = re.compile(r"=(?!=)")


def error_in(text: str) -> str:
    """Return why a cell is a spreadsheet error; '' if it is none."""
    if text[:1] not in "#E" or not (text.upper() in _ERRORS or _ERROR.fullmatch(text)):
        return ""
    if text.startswith("###"):
        return f"is {text[:12]!r}, which a spreadsheet program shows where a column is too narrow; enter the value"
    return f"is the spreadsheet error {text}; correct its formula, or clear the cell"


def invalid_cell(text: str) -> str:
    """Return why a cell of a table is no value: a spreadsheet error or a formula; '' if it is one."""
    if _FORMULA.match(text):
        return (
            f"is a formula ({text[:20]!r}); replace it by its result: copy the column, and paste it as values"
            if len(text) > 1
            else "is '=' without a value; enter the value, or clear the cell"
        )
    return error_in(text)


#: The first characters of cells that `invalid_cell` may reject.
SUSPECT = frozenset("=#E")


def json_errors(value: Any, path: str = "") -> list[str]:
    """Return the spreadsheet errors in the texts of a JSON value, with their fields."""
    if isinstance(value, str):
        error = error_in(value.strip())
        return [f"{path}: {error}"] if error else []
    if isinstance(value, Mapping):
        return [error for name, child in value.items() for error in json_errors(child, f"{path}.{name}".strip("."))]
    if isinstance(value, list):
        return [error for place, child in enumerate(value) for error in json_errors(child, f"{path}.{place}")]
    return []


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
    number = _number(text)
    whole = _WHOLE.fullmatch(number)
    return whole[1] if whole else number


def _weight(text: str) -> str:
    percent = _PERCENT.fullmatch(_unmarked(text))
    if percent is None:
        return _number(text)
    number = _number(percent[1])
    try:
        return format(float(number) / 100, ".15g")
    except ValueError:
        return text


def _number(text: str) -> str:
    """Return a number with a point and without groups, if it is certain; otherwise the text."""
    number = _unmarked(text)
    if _GROUPS.match(number):
        number = _GROUP_SIGN.sub("", number)
        return number.replace(",", ".")
    comma = _DECIMAL_COMMA.fullmatch(number)
    if comma and (len(comma[3]) != 3 or comma[2] in ("", "0")):
        return f"{comma[1]}{comma[2]}.{comma[3]}"
    return number


def _unmarked(text: str) -> str:
    """Return a cell without the apostrophe that marks it as text in Excel."""
    return text.removeprefix("'").strip()


_BY_TYPE: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("reuse", "custom_mode", "make_instrumental", "auto_lyrics"), _boolean),
    **dict.fromkeys(("style_weight", "weirdness_constraint", "audio_weight"), _weight),
    **dict.fromkeys(("priority", "vocal_gender", "audio_sha256"), _word),
    "start_within_s": _number,
    "max_credits": _integer,
}


def converter(field: str) -> Callable[[str], str] | None:
    """Return the function that reads the cells of a column; None for a column of text. It may raise ValueError."""
    return _BY_TYPE.get(field)
