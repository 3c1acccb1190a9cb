"""Aliases on a real MLflow database: given back, taken away and moved by hand."""

from __future__ import annotations

import re

import pytest

from ogsrl.errors import OgsrlError
from ogsrl.registry import CHALLENGER, CHAMPION, Entry, Registry
from tests.registered import MARGIN, another, better, carded, versions, worse


def test_what_an_interrupted_call_meant_to_give_is_earned_again(
    registry: Registry, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(type(registry.client), "set_registered_model_alias", ended)
        with pytest.raises(KeyboardInterrupt):
            registry.register(entry, "ogsrl", MARGIN, None)  # nobody was champion then
    assert registry.register(another(entry, "b"), "ogsrl", MARGIN, None).alias == CHAMPION
    again = registry.register(entry, "ogsrl", MARGIN, worse)
    assert (again.version, again.alias) == (1, CHALLENGER)
    assert registry.aliases("sepsis").holder(CHAMPION) == 2


def test_rolling_back_gives_the_alias_to_the_champion_before(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    with pytest.raises(OgsrlError, match="no champion came before version 1"):
        registry.rollback("sepsis")
    later = another(entry, "later")
    registry.register(later, "ogsrl", MARGIN, better)
    assert registry.rollback("sepsis") == (2, 1)
    aliases = registry.aliases("sepsis")
    assert aliases.holder(CHAMPION) == 1
    assert aliases.champions() == [1]
    # the one that was taken back stays back when it is registered again
    placed = registry.register(later, "ogsrl", MARGIN, better)
    assert (placed.version, placed.alias, placed.said) == (2, None, "it was rolled back")
    assert aliases.holder(CHAMPION) == 1
    with pytest.raises(OgsrlError, match="nothing of this name"):
        registry.rollback("nobody")


def test_what_was_rolled_back_does_not_come_back_with_a_new_card(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    later = another(entry, "later")
    registry.register(later, "ogsrl", MARGIN, better)
    registry.rollback("sepsis")
    placed = registry.register(carded(later, "new card"), "ogsrl", MARGIN, better)
    assert (placed.version, placed.alias) == (2, CHALLENGER)
    assert "rolled back" in placed.said
    assert registry.aliases("sepsis").holder(CHAMPION) == 1
    assert versions(registry) == [1, 2]


def test_rolling_back_begins_with_whoever_has_the_alias(registry: Registry, entry: Entry) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    for name in ("b", "c"):
        registry.register(another(entry, name), "ogsrl", MARGIN, better)
    registry.register(another(entry, "d"), "ogsrl", MARGIN, worse)
    registry.client.set_registered_model_alias("sepsis", CHAMPION, "4")  # by hand: never earned
    assert registry.rollback("sepsis") == (4, 3)
    registry.client.set_registered_model_alias("sepsis", CHAMPION, "2")
    assert registry.rollback("sepsis") == (2, 1)
    assert registry.aliases("sepsis").champions() == [1]
    registry.client.delete_registered_model_alias("sepsis", CHAMPION)
    with pytest.raises(OgsrlError, match="no champion came before version 1"):
        registry.rollback("sepsis")


def test_where_the_champions_newest_audit_failed_the_one_before_comes_back(
    registry: Registry, entry: Entry
) -> None:
    registry.register(another(entry, "never", "failed"), "ogsrl", MARGIN, None)
    with pytest.raises(OgsrlError, match="nobody was ever champion"):
        registry.rollback("sepsis")
    registry.register(entry, "ogsrl", MARGIN, None)
    later = another(entry, "later")
    registry.register(later, "ogsrl", MARGIN, better)
    aliases = registry.aliases("sepsis")
    for card, verdict in (("unsure", "undecided"), ("sure again", "passed"), ("bad", "failed")):
        registry.register(carded(later, card, verdict), "ogsrl", MARGIN, None)
    assert (aliases.holder(CHAMPION), aliases.champions()) == (None, [2, 3])
    assert registry.rollback("sepsis") == (3, 2)
    assert (aliases.holder(CHAMPION), aliases.champions()) == (2, [2])


def test_what_was_measured_beside_the_champion_and_is_behind_is_not_promoted(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    placed = registry.register(another(entry, "b"), "ogsrl", MARGIN, worse)
    assert placed.said.endswith("worse, lower bound asked: above -0.01")
    with pytest.raises(OgsrlError, match=r"measured beside version 1, the champion, .* as good"):
        registry.promote("sepsis", 2, "I like it")
    assert registry.aliases("sepsis").holder(CHAMPION) == 1
    registry.register(another(entry, "c"), "ogsrl", MARGIN, better)  # beside whom nobody measured
    registry.promote("sepsis", 2, "new data")
    assert registry.aliases("sepsis").holder(CHAMPION) == 2


def test_rolling_back_goes_past_versions_that_are_gone_or_failed_since(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    failing = another(entry, "b")
    for one in (failing, another(entry, "c"), another(entry, "d")):
        registry.register(one, "ogsrl", MARGIN, better)
    registry.client.delete_model_version("sepsis", "3")
    registry.register(carded(failing, "again", "failed"), "ogsrl", MARGIN, None)
    assert registry.rollback("sepsis") == (4, 1)
    assert registry.aliases("sepsis").champions() == [1]


def test_a_version_is_promoted_for_a_reason_if_its_audit_passed(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    registry.register(another(entry, "b"), "ogsrl", MARGIN, None)
    registry.register(another(entry, "c", "undecided"), "ogsrl", MARGIN, None)
    aliases = registry.aliases("sepsis")
    for version, reason, told in (
        (2, " ", "a reason is needed"),
        (3, "new data", "the audit of version 3 is undecided"),
        (1, "new data", "champion already"),
        (9, "new data", "no such model"),
    ):
        with pytest.raises(OgsrlError, match=told):
            registry.promote("sepsis", version, reason)
    assert aliases.holder(CHAMPION) == 1
    registry.promote("sepsis", 2, "new  data")
    tags = registry.client.get_model_version("sepsis", "2").tags
    assert tags["ogsrl.promoted.reason"] == "new data"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", tags["ogsrl.promoted.date"])
    assert (aliases.holder(CHAMPION), aliases.champions()) == (2, [1, 2])
    assert registry.rollback("sepsis") == (2, 1)
    registry.promote("sepsis", 2, "it was not its fault")
    assert (aliases.holder(CHAMPION), aliases.champions()) == (2, [1, 2])
    assert "ogsrl.rolled_back" not in registry.client.get_model_version("sepsis", "2").tags
