"""Who is champion and challenger of a registered model, who was, and how that changes.

Called by the registry. An alias moves here alone; whoever moves it by hand in MLflow is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ogsrl.errors import OgsrlError
from ogsrl.registry.entry import (
    BEHIND,
    CHALLENGER,
    CHAMPION,
    CHAMPIONS,
    LONGEST,
    PROMOTED_ON,
    PROMOTED_WHY,
    REASON,
    ROLLED_BACK,
    VERDICT,
)


@dataclass(frozen=True)
class Aliases:
    """Of one registered model.

    Attributes:
        client: Of MLflow.
        name: The model's.
    """

    client: MlflowClient
    name: str

    def holder(self, alias: str) -> int | None:
        """The version with this alias."""
        held = self._model().aliases.get(alias)
        return None if held is None else int(held)

    def champions(self) -> list[int]:
        """Versions that were champion, oldest first, the present one last."""
        return [int(one) for one in self._model().tags.get(CHAMPIONS, "").split(",") if one]

    def version(self, number: int) -> ModelVersion | None:
        """None if there is none, e.g. since it was deleted."""
        try:
            return self.client.get_model_version(self.name, str(number))
        except MlflowException:
            return None

    def give(self, alias: str | None, number: int) -> None:
        """This alias and not the other; None: neither. Who was champion is written down."""
        before = self.holder(CHAMPION)
        if alias is not None:
            self.client.set_registered_model_alias(self.name, alias, str(number))
        for other in (CHAMPION, CHALLENGER):
            if other != alias and self.holder(other) == number:
                self.client.delete_registered_model_alias(self.name, other)
        known = self.champions()
        if alias == CHAMPION and (before != number or number not in known):
            if before is not None and before not in (number, *known[-1:]):
                known.append(before)  # somebody made it champion by hand
            self._write(known if known[-1:] == [number] else [*known, number])

    def rollback(self) -> tuple[int, int]:
        """Give `champion` back to who had it before; (from, to).

        Where nobody has it, since the last one's newest audit did not pass, from that one. Each
        step may be the last of an interrupted one: what was rolled back says so first.
        """
        now, known = self.holder(CHAMPION), self.champions()
        if now is None and not known:
            raise OgsrlError(f"{self.name}: nobody was ever champion")
        now = known[-1] if now is None else now
        last = max((i for i, one in enumerate(known) if one == now), default=len(known))
        before = known[:last]
        while before and not self._may_return(before[-1], now):
            before.pop()
        if not before:
            raise OgsrlError(f"{self.name}: no champion came before version {now}")
        self._tag(now, ROLLED_BACK, "yes")
        self._tag(now, REASON, "none: it was rolled back")
        self.client.set_registered_model_alias(self.name, CHAMPION, str(before[-1]))
        self._write(before)
        return now, before[-1]

    def _may_return(self, number: int, now: int) -> bool:
        """Whether it is still there, and its newest audit still passed."""
        found = self.version(number)
        return number != now and found is not None and found.tags.get(VERDICT) == "passed"

    def promote(self, number: int, reason: str) -> None:
        """Make a version champion because somebody says so, who has a reason."""
        name, reason = self.name, " ".join(reason.split())[:LONGEST]
        if not reason:
            raise OgsrlError(f"{name}: a reason is needed; it is kept with the version")
        found = self.version(number)
        if found is None:
            raise OgsrlError(f"{name}: there is no version {number}")
        verdict = found.tags.get(VERDICT, "unknown")
        if verdict != "passed":
            raise OgsrlError(
                f"{name}: the audit of version {number} is {verdict}; only one whose audit passed "
                "may be champion"
            )
        champion = self.holder(CHAMPION)
        if champion is not None and found.tags.get(BEHIND) == str(champion):
            raise OgsrlError(
                f"{name}: version {number} was measured beside version {champion}, the champion, "
                "on the same test patients, and is not surely as good; only what nothing can "
                "compare is promoted by hand"
            )
        if champion == number and self.champions()[-1:] == [number]:
            raise OgsrlError(f"{name}: version {number} is champion already")
        self._tag(number, PROMOTED_WHY, reason)
        self._tag(number, PROMOTED_ON, datetime.now(UTC).date().isoformat())
        self._tag(number, REASON, f"{CHAMPION}: promoted by hand: {reason}")
        self.give(CHAMPION, number)
        if ROLLED_BACK in found.tags:
            self.client.delete_model_version_tag(name, str(number), ROLLED_BACK)

    def _tag(self, number: int, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, str(number), key, value)

    def _write(self, champions: Sequence[int]) -> None:
        told = ",".join(map(str, champions))
        self.client.set_registered_model_tag(self.name, CHAMPIONS, told)

    def _model(self) -> Any:
        try:
            return self.client.get_registered_model(self.name)
        except MlflowException:
            raise OgsrlError(f"{self.name}: nothing of this name is registered") from None
