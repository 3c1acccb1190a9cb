"""What codes mean: a file of mappings/, typed and checked, and its answer to an export's codes.

Called by the MEDS source. A unit that the file does not name is an error that lists it: values of
an unknown unit are never taken as if they were of a known one.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ogsrl.errors import SourceError
from ogsrl.spec.mistakes import CohortFileError
from ogsrl.spec.model import Interval, Section
from ogsrl.spec.tree import Tree, read_tree

#: Divides the parts of a code.
BETWEEN = "//"
#: Units listed in an error.
LISTED = 20


class Conversion(Section):
    """From a unit of the export to ours: factor x value + offset."""

    factor: float = Field(1.0, description="What values are multiplied with.")
    offset: float = Field(0.0, description="What is added then.")
    per_kg: bool = Field(False, description="Whether it is then divided by the weight, in kg.")


#: By the text of a unit, "" where an export tells none. A number is a factor alone.
Units = dict[str, float | Conversion]


class Concept(Section):
    """A charted value."""

    unit: str = Field(description="Our unit.")
    plausible: Interval = Field(description="Values outside are left out, and counted.")
    codes: dict[str, Units] = Field(min_length=1, description="Codes, each with its units.")


class Drug(Section):
    """An infusion whose rate is a dose; codes of its starts (rates) and ends (amounts)."""

    start: str
    end: str
    unit: str = Field(description="Our unit of the rate.")
    plausible: Interval = Field(description="In our unit; a rate outside is no dose that is known.")
    rates: Units = Field(min_length=1, description="From units of the export to it.")
    minute: Conversion = Field(description="What a minute at 1 `unit` comes to, as ends tell it.")


class Fluid(Section):
    """Infusions whose volume is a dose; codes of starts (mL/h) and, in their order, ends (mL)."""

    start: list[str] = Field(min_length=1)
    end: list[str] = Field(min_length=1)
    rates: Units = Field(description="From units of the export to mL/h.")
    volumes: Units = Field(description="From units of the export to mL.")
    plausible: Interval = Field(
        (0, 10_000), description="mL of one infusion; a volume outside is no dose that is known."
    )
    tonicity: float = Field(1.0, gt=0, le=10, description="mL of isotonic fluid in 1 mL.")


class Equivalents(Section):
    """A named set that makes one dose of several drugs."""

    source: str = Field(description="Who published it.")
    of: dict[str, float] = Field(min_length=1, description="Drug -> what 1 of its unit counts.")


class Moment(Section):
    """Something that happened."""

    codes: list[str] = Field(description="Codes or patterns; none: this export does not tell.")
    but: list[str] = Field(default_factory=list, description="Patterns of those that are not it.")
    note: str = Field("", description="What an export leaves out of it: told in report and card.")


class CodeMap(Section):
    """mappings/NAME.yaml."""

    name: str = Field(description="The file's name without .yaml.")
    version: int = Field(ge=1, description="Raised by hand when its meaning changes.")
    description: str = Field("", description="Which exports it is for.")
    concepts: dict[str, Concept] = Field(min_length=1)
    drugs: dict[str, Drug] = Field(default_factory=dict)
    fluids: dict[str, Fluid] = Field(default_factory=dict)
    equivalents: dict[str, Equivalents] = Field(default_factory=dict)
    moments: dict[str, Moment] = Field(default_factory=dict)

    @cached_property
    def _known(self) -> dict[str, list[_Known]]:
        found: dict[str, list[_Known]] = {}
        for code, known in _known_codes(self):
            found.setdefault(code, []).append(known)
        return found

    @cached_property
    def _patterns(self) -> list[tuple[_Known, re.Pattern[str], re.Pattern[str]]]:
        """Of moments: what it is, whose codes, and whose not."""
        return [
            (_Known("moment", name, None), _any(texts), _any(moment.but))
            for name, moment in self.moments.items()
            if (texts := [one for one in moment.codes if "*" in one])
        ]

    def _of(self, code: str) -> Iterator[tuple[_Known, str]]:
        """What a code is, and what follows it: "" where nothing does."""
        end = len(code)
        while end >= 0:
            for known in self._known.get(code[:end], ()):
                yield known, code[end:].removeprefix(BETWEEN)
            end = code.rfind(BETWEEN, 0, end)
        for known, texts, but in self._patterns:
            if texts.fullmatch(code) and not but.fullmatch(code):
                yield known, ""

    def meanings(self, codes: Iterable[tuple[str, str | None]]) -> dict[Code, list[Meaning]]:
        """What each code, with the unit told beside it, stands for; nothing: left out.

        A code's own last part is its unit where no other is told.

        Raises:
            SourceError: With every unit that the file does not name.
        """
        known: dict[Code, list[Meaning]] = {}
        unknown: set[str] = set()
        for code, told in codes:
            found: dict[Meaning, None] = {}
            for one, rest in self._of(code):
                unit = told if told is not None else rest
                if one.units is not None and unit not in one.units:
                    unknown.add(f"{one.name}: {unit or 'none'}")
                    continue
                given = 1.0 if one.units is None else one.units[unit]
                conversion = given if isinstance(given, Conversion) else Conversion(factor=given)
                found[Meaning(one.kind, one.name, conversion, unit, one.item)] = None
            if found:
                known[code, told] = [*found]
        if unknown:
            listed = ", ".join(sorted(unknown)[:LISTED])
            more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
            raise SourceError(
                f"mappings/{self.name}.yaml: {len(unknown)} units that it does not name: "
                f"{listed}{more}; add each with its factor to the codes of that name"
            )
        return known


#: A code, and the unit that the export tells beside it.
Code = tuple[str, str | None]
Kind = Literal["concept", "rate", "amount", "flow", "volume", "moment"]


@dataclass(frozen=True)
class Meaning:
    """What a code stands for.

    Attributes:
        kind: A charted value; a drug's rate or amount; a fluid's flow or volume; a moment.
        name: Of the concept, drug, fluid or moment.
        conversion: To our unit.
        unit: As the export tells it; "": it tells none.
        item: Which of a fluid's bags, from 0: starts and ends of one have the same.
    """

    kind: Kind
    name: str
    conversion: Conversion
    unit: str
    item: int = 0


@dataclass(frozen=True)
class _Known:
    """What a code is; `units` is None where values have none."""

    kind: Kind
    name: str
    units: Units | None
    item: int = 0


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    """One of these, whatever the case: drugs are written in many.

    >>> bool(_any(["*//Vanco*"]).fullmatch("DRUG//vancomycin//Given"))
    True
    """
    each = [fnmatch.translate(one) for one in patterns]
    return re.compile("|".join(each) or "(?!)", re.IGNORECASE)


def _known_codes(made: CodeMap) -> Iterator[tuple[str, _Known]]:
    for name, concept in made.concepts.items():
        for code, units in concept.codes.items():
            yield code, _Known("concept", name, units)
    for name, drug in made.drugs.items():
        yield drug.start, _Known("rate", name, drug.rates)
        yield drug.end, _Known("amount", name, None)
    for name, fluid in made.fluids.items():
        for item, (start, end) in enumerate(zip(fluid.start, fluid.end, strict=True)):
            yield start, _Known("flow", name, fluid.rates, item)
            yield end, _Known("volume", name, fluid.volumes, item)
    for name, moment in made.moments.items():
        for code in moment.codes:
            if "*" not in code:
                yield code, _Known("moment", name, None)


def load_mapping(path: Path) -> CodeMap:
    """Read and check a file of mappings/.

    Raises:
        CohortFileError: With every mistake, each with its key path and line.
    """
    if not path.is_file():
        raise SourceError(f"source.options.mapping: there is no mappings/{path.name}")
    tree = read_tree(path.read_text(encoding="utf-8"))
    if not tree.mistakes:
        try:
            made = CodeMap.model_validate_json(json.dumps(tree.values))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                tree.add(tuple(detail["loc"]), detail["type"], detail["msg"])
        else:
            if made.name != path.stem:
                tree.add(("name",), "name_of_file", f"must be the file's name, {path.stem}")
            _check_names(made, tree)
    if tree.mistakes:
        raise CohortFileError(f"mappings/{path.name}", tree.mistakes)
    return made


def _check_names(made: CodeMap, tree: Tree) -> None:
    for name, fluid in made.fluids.items():
        if len(fluid.start) != len(fluid.end):
            tree.add(("fluids", name, "end"), "pairs", "needs one code for each of start")
    for name, one in made.equivalents.items():
        for drug in sorted(set(one.of) ^ set(made.drugs)):
            word = "no drug of this file" if drug in one.of else "missing; every drug needs one"
            tree.add(("equivalents", name, "of", drug), "drug", f"{drug}: {word}")
