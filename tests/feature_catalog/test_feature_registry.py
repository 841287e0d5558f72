"""The registry: whole applies or none, versions that stay, deletions that hurt nobody."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from feature_catalog.audit_log import AuditLog
from feature_catalog.database import connect
from feature_catalog.definitions import Entity
from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet, key_of
from feature_catalog.definitions.errors import MissingDefinition
from feature_catalog.definitions.files import parse_definitions
from feature_catalog.feature_plan import (
    Action,
    ConflictingDeletion,
    DefinitionInUse,
    UnknownDefinition,
)
from feature_catalog.feature_registry import FeatureRegistry, RegistryChanged, UnreadableRegistry
from tests.feature_catalog.definitions.examples import TEXT, parsed, with_change

pytestmark = pytest.mark.integration

SERVICE = DefinitionKey("feature_service", "ads_ctr_v1")
AD_STATS = DefinitionKey("feature_view", "ad_stats")
USER = DefinitionKey("entity", "user")
TABLES = ("feature_applies", "feature_definitions", "feature_contracts", "audit_log")


@pytest.fixture
def registry(engine: Engine) -> FeatureRegistry:
    return FeatureRegistry(engine)


@pytest.fixture
def applied(registry: FeatureRegistry) -> Iterator[FeatureRegistry]:
    registry.apply(parsed(), actor="ann@desk")
    return registry


def unchecked(text: str) -> DefinitionSet:
    return DefinitionSet({key_of(each): each for each in parse_definitions(text)})


def only(*names: str) -> DefinitionSet:
    """Some of the example's definitions, which need not fit each other by themselves."""
    definitions = parsed().definitions
    return DefinitionSet({key: definitions[key] for key in definitions if key.name in names})


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return [connection.execute(text(f"SELECT count(*) FROM {t}")).scalar_one() for t in TABLES]


def test_a_plan_says_what_apply_then_does(registry: FeatureRegistry, engine: Engine):
    plan = registry.plan(parsed())
    assert rows(engine) == [0, 0, 0, 0]
    done = registry.apply(parsed(), expected_sha256=plan.registry_sha256, actor="ann@desk")
    assert done == plan
    assert {change.action for change in plan.changes} == {Action.CREATE}
    assert registry.state().definitions.definitions == parsed().definitions
    (entry,) = AuditLog(engine).entries()
    assert (entry.actor, entry.action, entry.detail["changes"]) == (
        "ann@desk",
        "features.applied",
        7,
    )


def test_applying_the_same_again_changes_nothing(applied: FeatureRegistry, engine: Engine):
    before, state = rows(engine), applied.state().sha256
    assert applied.apply(parsed()).is_empty
    # Not even where someone expects another state: what they want is so.
    assert applied.apply(parsed(), expected_sha256="0" * 64).is_empty
    assert rows(engine) == before
    assert applied.state().sha256 == state


def test_a_change_is_a_new_version_and_the_old_one_stays(applied: FeatureRegistry):
    old = applied.state()
    plan = applied.apply(parsed(with_change("ttl: 2d", "ttl: 3d")), actor="bob@desk")
    (change,) = plan.changes
    assert (change.action, change.key, change.version) == (Action.UPDATE, AD_STATS, 2)
    assert [(v.path, v.old, v.new) for v in change.values] == [("ttl", "2d", "3d")]
    first, second = applied.history(AD_STATS)
    assert first.definition == old.definitions.definitions[AD_STATS]
    assert (first.actor, second.actor) == ("ann@desk", "bob@desk")
    assert applied.version("ad_stats@1") == first
    assert applied.version("ad_stats") == second
    # The service itself is as it was, and what it comes to is not.
    assert len(applied.history(SERVICE)) == 1
    before, after = applied.contracts("ads_ctr_v1")
    assert before.contract.sha256 == old.contracts["ads_ctr_v1"]
    assert after.contract.sha256 != before.contract.sha256
    assert plan.contracts[0].because == (AD_STATS,)


def test_a_contract_is_the_digest_of_what_is_stored_and_goes_back_with_its_members(
    applied: FeatureRegistry,
):
    applied.apply(parsed(with_change("ttl: 2d", "ttl: 3d")))
    applied.apply(parsed())
    first, second, third = applied.contracts("ads_ctr_v1")
    assert first.contract == third.contract != second.contract
    members = json.loads(first.contract.content_json)
    assert [each["name"] for each in members["assets"]] == ["ad_categories"]
    assert len(members["features"]) == 7
    assert "owner" not in members["views"][0]
    assert applied.state().contracts == {"ads_ctr_v1": first.contract.sha256}


def test_documentation_is_versioned_and_changes_no_contract(applied: FeatureRegistry):
    plan = applied.apply(parsed(with_change("owner: growth}", "owner: someone}")))
    assert [change.key for change in plan.changes] == [USER]
    assert plan.contracts == ()
    assert len(applied.contracts("ads_ctr_v1")) == 1


def test_files_may_build_on_what_the_catalog_has(applied: FeatureRegistry):
    text_of = "feature_services: [{name: small, features: [user_stats:clicks_7d]}]"
    plan = applied.apply(unchecked(text_of))
    assert [str(change.key) for change in plan.changes] == ["feature_service small"]
    assert len(plan.left) == 7


def test_a_deletion_is_refused_while_something_needs_it(applied: FeatureRegistry, engine: Engine):
    before = rows(engine)
    with pytest.raises(DefinitionInUse, match=r"feature_view ad_stats cannot .* ads_ctr_v1 needs"):
        applied.apply(DefinitionSet({}), delete=[AD_STATS])
    with pytest.raises(DefinitionInUse, match=r"entity user cannot .* ad_views, feature_view user"):
        applied.apply(DefinitionSet({}), delete=[USER])
    with pytest.raises(DefinitionInUse, match="asset ad_categories cannot be deleted"):
        applied.apply(only("ads_ctr_v1", "ad_stats", "ad", "user_stats", "user"), prune=True)
    assert rows(engine) == before


def test_a_deletion_with_all_that_needs_it_leaves_the_history(applied: FeatureRegistry):
    first = applied.state()
    applied.apply(DefinitionSet({}), delete=[AD_STATS, SERVICE])
    state = applied.state()
    assert AD_STATS not in state.definitions.definitions
    assert state.contracts == {}
    created, deleted = applied.history(AD_STATS)
    assert created.definition is not None
    assert (deleted.definition, deleted.version) == (None, 2)
    # Defined again, it goes on counting, and the state is not mistaken for the first.
    applied.apply(parsed())
    assert applied.version("ad_stats").version == 3
    assert applied.state().definitions == first.definitions
    assert applied.state().sha256 != first.sha256
    assert applied.state().contracts == first.contracts


def test_pruning_leaves_what_the_files_say(applied: FeatureRegistry):
    plan = applied.apply(only("user", "user_stats"), prune=True)
    assert {change.action for change in plan.changes} == {Action.DELETE}
    assert sorted(applied.state().definitions.definitions) == [USER, ("feature_view", "user_stats")]


def test_what_is_not_there_cannot_be_deleted_and_what_is_defined_neither(applied: FeatureRegistry):
    with pytest.raises(UnknownDefinition, match="there is no entity nobody to delete"):
        applied.plan(DefinitionSet({}), delete=[DefinitionKey("entity", "nobody")])
    with pytest.raises(ConflictingDeletion, match=r"entity user .* features.yaml"):
        applied.plan(parsed(), delete=[USER])


def test_a_change_that_takes_a_served_field_away_is_refused(applied: FeatureRegistry):
    text_of = (
        "feature_views: [{name: ad_stats, entities: [ad], source: {path: ad_stats.parquet}, "
        "schema: [{name: category, dtype: string}]}]"
    )
    with pytest.raises(
        MissingDefinition, match=r"the catalog: feature_services.ads_ctr_v1.features.ctr_30d"
    ):
        applied.apply(unchecked(text_of))
    assert len(applied.history(AD_STATS)) == 1


def test_an_apply_of_a_plan_that_is_overtaken_is_refused(applied: FeatureRegistry, engine: Engine):
    plan = applied.plan(parsed(with_change("ttl: 2d", "ttl: 3d")))
    applied.apply(DefinitionSet({key_of(e): e for e in [Entity("other")]}))
    before = rows(engine)
    with pytest.raises(RegistryChanged, match="has changed since this plan was made"):
        applied.apply(
            parsed(with_change("ttl: 2d", "ttl: 3d")), expected_sha256=plan.registry_sha256
        )
    assert rows(engine) == before


def _apply_in_process(url: str, name: str, expected: str, barrier, answers) -> None:
    engine = connect(url)
    barrier.wait()
    try:
        FeatureRegistry(engine).apply(
            DefinitionSet(
                {key_of(e): e for e in [Entity(name), Entity("shared", description=name)]}
            ),
            expected_sha256=expected,
        )
        answers.put((name, "applied"))
    except RegistryChanged as error:
        answers.put((name, error.code))
    engine.dispose()


def test_of_two_processes_that_apply_the_same_plan_s_state_one_is_refused(
    registry: FeatureRegistry, database_url: str
):
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(2), spawn.Queue()
    expected = registry.state().sha256
    processes = [
        spawn.Process(
            target=_apply_in_process, args=(database_url, name, expected, barrier, answers)
        )
        for name in ("left", "right")
    ]
    for process in processes:
        process.start()
    told = dict(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert sorted(told.values()) == ["FLN-2810", "applied"]
    (winner,) = [name for name, said in told.items() if said == "applied"]
    assert registry.state().definitions.names("entity") == sorted([winner, "shared"])
    assert registry.version("shared").definition == Entity("shared", description=winner)
    assert len(registry.applies()) == 1


def _apply_unexpectedly(url: str, name: str, count: int, barrier) -> None:
    engine = connect(url)
    barrier.wait()
    for number in range(count):
        FeatureRegistry(engine).apply(
            DefinitionSet({key_of(e): e for e in [Entity("shared", description=f"{name}{number}")]})
        )
    engine.dispose()


def test_applies_at_once_come_one_after_the_other(registry: FeatureRegistry, database_url: str):
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [
        spawn.Process(target=_apply_unexpectedly, args=(database_url, name, 6, barrier))
        for name in ("left", "right")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    versions = registry.history(DefinitionKey("entity", "shared"))
    assert [each.version for each in versions] == list(range(1, 13))
    assert {each.definition.description for each in versions} == {
        f"{name}{number}" for name in ("left", "right") for number in range(6)
    }


def _be_killed_before(url: str, statement_of: str) -> None:
    """Apply, and be killed when a statement on a table is to be sent (or the commit)."""
    engine = connect(url)

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if statement_of == "commit":
        event.listen(engine, "commit", kill)
    else:

        @event.listens_for(engine, "after_cursor_execute")
        def after(_c, _cursor, statement, *_: object) -> None:
            if statement.startswith(f"INSERT INTO {statement_of}"):
                kill()

    FeatureRegistry(engine).apply(parsed())


@pytest.mark.parametrize("place", ["feature_definitions", "commit"])
def test_an_apply_that_is_killed_has_done_nothing(
    registry: FeatureRegistry, engine: Engine, database_url: str, place: str
):
    process = multiprocessing.get_context("spawn").Process(
        target=_be_killed_before, args=(database_url, place)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert rows(engine) == [0, 0, 0, 0]
    assert len(registry.apply(parsed()).changes) == 7  # its lock is gone with it


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE feature_definitions SET definition_json = '{}' WHERE name = 'user'",
        "DELETE FROM feature_contracts",
        "TRUNCATE feature_applies CASCADE",
    ],
)
def test_the_database_itself_refuses_to_change_a_version(
    applied: FeatureRegistry, engine: Engine, change: str
):
    with pytest.raises(DBAPIError, match="never changed"), engine.begin() as connection:
        connection.execute(text(change))


def test_a_name_is_found_or_told_what_there_is(applied: FeatureRegistry):
    applied.apply(
        unchecked(
            "assets: [{name: user, type: vocabulary, version: 1, size_bytes: 1, "
            f"sha256: '{'0' * 64}'}}]"
        )
    )
    assert applied.find("ad_stats") == AD_STATS
    assert applied.find("entity/user") == USER
    with pytest.raises(UnknownDefinition, match="say asset/user or entity/user"):
        applied.find("user")
    with pytest.raises(UnknownDefinition, match=r"'ad_stat' \(did you mean ad_stats\?\)"):
        applied.find("ad_stat")
    with pytest.raises(UnknownDefinition, match="'view' is no kind"):
        applied.find("view/ad_stats")
    for wrong in ("ad_stats@2", "ad_stats@0", "ad_stats@x", f"ad_stats@{'9' * 400}"):
        with pytest.raises(UnknownDefinition, match="the versions of ad_stats are 1 to 1"):
            applied.version(wrong)


def test_a_definition_of_another_flint_is_told_of(registry: FeatureRegistry, engine: Engine):
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO feature_applies (actor, registry_sha256, changes) "
                "VALUES ('x', '', '[]')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO feature_definitions SELECT 'entity', 'user', 1, "
                """'{"name": "user", "shape_of_things": 1}', '', id FROM feature_applies"""
            )
        )
    with pytest.raises(UnreadableRegistry, match="shape_of_things is not a known key"):
        registry.state()


def test_the_example_s_tables_hold_what_its_definitions_name(tmp_path: Path):
    import runpy

    import pyarrow.parquet as pq

    from tests.feature_catalog.definitions.examples import FOLDER

    runpy.run_path(str(FOLDER / "generate.py"))["write"](tmp_path)
    given = parsed(TEXT)
    for name in ("user_stats", "ad_stats"):
        view = given.view(name)
        columns = set(pq.read_schema(tmp_path / view.source.path).names)
        keys = {key for each in view.entities for key in given.entity(each).join_keys}
        times = {view.source.event_ts, view.source.created_ts} - {None}
        assert keys | times | {field.name for field in view.schema} <= columns
    vocabulary = (tmp_path / "ad_categories.txt").read_bytes()
    import hashlib

    asset = given.asset("ad_categories")
    assert hashlib.sha256(vocabulary).hexdigest() == asset.sha256
    assert (len(vocabulary), vocabulary.count(b"\n")) == (asset.size_bytes, asset.entries)
