"""Jobs as records: a row comes back from its record as it was, and no record breaks a listing."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import apsw
import orjson
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.api.views import Owner, job_view
from container_manager.errors import Conflict
from container_manager.job import Job, Status
from container_manager.record import Record
from container_manager.store import job_records, jobs, records
from container_manager.store.document import document
from container_manager.store.records import JOB, Place
from container_manager.store.schema import MIGRATIONS
from tests.unit.builders import NODE, NOW, Step, container, job_in, new_job, specs, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Place(1, 7)
SIGNATURE = bytes(range(96))
ALL = f"SELECT {job_records._COLUMNS} FROM job"


@cache
def empty_store() -> bytes:
    connection = apsw.Connection(":memory:")
    for statements in MIGRATIONS:
        connection.execute(statements)
    return connection.serialize("main")


@contextmanager
def store() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", empty_store())
    try:
        yield connection
    finally:
        connection.close()


def said(record: Record) -> list[Any]:
    elements: list[Any] = ormsgpack.unpackb(record.body or b"")
    return elements


def changed(record: Record, elements: Any) -> Record:
    """The record with another body, as it would come from elsewhere."""
    fields = (record.epoch, record.revision, record.writer, record.expires_at)
    return Record(JOB, record.id, *fields, ormsgpack.packb(elements), SIGNATURE)


def a_record(job: Job | None = None) -> Record:
    row = jobs.row(job or job_in(Status.COMPLETE, labels={"a": "b"}), PLACE, NOW)
    return job_records.record((*row, SIGNATURE, None, b"sealed lines"))


def listed(connection: apsw.Connection) -> int:
    """How many jobs a listing shows; each of them is made into what callers see."""
    page = jobs.page(connection, jobs.Filter(), 10, None)
    for job in page.jobs:
        orjson.dumps(job_view(job, Owner(True, NOW, None), None))
    return len(page.jobs)


@st.composite
def lived(draw: st.DrawFn) -> Job:
    """A job of any spec that has come to anywhere."""
    job = Job.new(
        id="01ba60d3-3800-7000-a117-c343e06ae86f",
        node=NODE,
        spec=draw(specs).model_copy(update={"env": {}}),
        sealed_env=draw(st.none() | st.binary(max_size=50)),
        now=NOW,
    )
    for step in draw(st.lists(st.just(Step("claimed")) | steps, max_size=6)):
        try:
            job = step(job, NOW)
        except Conflict:
            continue
    return job


@given(lived(), st.none() | st.binary(min_size=1), st.none() | st.integers(0, 2**56))
def test_a_row_comes_back_from_its_record_as_it_was_and_the_record_from_the_row(
    job: Job, output: bytes | None, expires_at: int | None
) -> None:
    with store() as first, store() as second:
        jobs.insert(first, jobs.row(job, PLACE, expires_at))
        if output is not None:
            jobs.set_output(first, job.id, output)
        key = jobs.row(job)[0]
        told = records.get(first, JOB, key)
        assert told is not None
        records.put(second, told, PLACE)
        assert list(second.execute(ALL)) == list(first.execute(ALL))
        assert jobs.get(second, job.id) == jobs.get(first, job.id)
        assert jobs.output(second, job.id) == output
        assert records.get(second, JOB, key) == told
        assert listed(second) == 1


later_elements = st.lists(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.floats(),
    min_size=1,
)


@given(later_elements)
def test_what_a_later_version_has_added_is_kept_and_handed_on_in_the_same_bytes(
    more: list[Any],
) -> None:
    later = changed(a_record(), [*said(a_record()), *more])
    with store() as connection:
        records.put(connection, later, PLACE)
        found = records.get(connection, JOB, later.id)
        assert found == later
        assert listed(connection) == 1


def test_this_nodes_own_change_keeps_what_a_later_version_has_added() -> None:
    later = changed(
        a_record(job_in(Status.RUNNING)), [*said(a_record(job_in(Status.RUNNING))), "x"]
    )
    with store() as connection:
        records.put(connection, later, PLACE)
        job_id = jobs.job_id_of(later.id)
        job = jobs.get(connection, job_id)
        assert job is not None
        failed = job.failed("no", None, NOW)
        jobs.update(connection, failed, PLACE, Place(1, 8), None)
        found = records.get(connection, JOB, later.id)
        assert found is not None
        assert found.signature is None
        assert said(found)[0] == "failed"
        assert said(found)[-1] == "x"


def test_fields_that_a_later_version_has_added_do_no_harm() -> None:
    elements = said(a_record())
    body = orjson.loads(elements[7])
    body["later"] = 1
    body["container"] |= {"later": [], "ports": []}
    later = changed(a_record(), [*elements[:7], orjson.dumps(body), *elements[8:]])
    with store() as connection:
        records.put(connection, later, PLACE)
        job = jobs.get(connection, jobs.job_id_of(later.id))
        assert job is not None
        assert job.status is Status.COMPLETE
        assert job.container == container()
        assert records.get(connection, JOB, later.id) == later


# What this version cannot read

STATUS, PHASE, FOLLOWED, CREATED, UPDATED, SPEC, ENV, BODY, DUE, OUTPUT = range(10)


def body_with(**fields: Any) -> bytes:
    return orjson.dumps({**orjson.loads(said(a_record())[BODY]), **fields})


def container_with(**fields: Any) -> bytes:
    known = orjson.loads(said(a_record())[BODY])["container"]
    return body_with(container={**known, **fields})


STRANGE: list[tuple[int, Any]] = [
    (STATUS, "paused"),
    (STATUS, None),
    (STATUS, []),
    (STATUS, "running"),  # without a phase
    (PHASE, "creating"),  # of what does not run
    (FOLLOWED, 2),
    (FOLLOWED, True),
    (FOLLOWED, 1.0),
    (CREATED, "1"),
    (CREATED, 2**63),
    (CREATED, -1),
    (CREATED, 1.5),
    (UPDATED, 2**64 - 1),
    (UPDATED, None),
    (SPEC, b"{"),
    (SPEC, b"[]"),
    (SPEC, b"{}"),
    (SPEC, '{"image":"nginx"}'),
    (SPEC, b'{"image":1}'),
    (SPEC, b'{"image":"nginx","a_later_field":1}'),
    (SPEC, b'{"image":"nginx","labels":[]}'),
    (SPEC, b'{"image":"nginx","name":1}'),
    (SPEC, b'{"image":"nginx","type":null}'),
    (SPEC, 1),
    (ENV, "open"),
    (BODY, b"null"),
    (BODY, b"{}"),
    (BODY, '{"history":[]}'),
    (BODY, b'{"history":1}'),
    (BODY, b'{"history":[[1]]}'),
    (BODY, b'{"history":[[-1,"pending",null,null,0]]}'),
    (BODY, b'{"history":[[1,"paused",null,null,0]]}'),
    (BODY, b'{"history":[[1,"running","dreaming",null,0]]}'),
    (BODY, b'{"history":[[1,"pending",null,7,0]]}'),
    (BODY, b'{"history":[[1,"pending",null,null,null]]}'),
    (BODY, b'{"history":[[99999999999999999999,"pending",null,null,0]]}'),
    (BODY, body_with(reason=1)),
    (BODY, body_with(attempts="1")),
    (BODY, body_with(due_at="now")),
    (BODY, body_with(cancel_requested=None)),
    (BODY, body_with(container=1)),
    (BODY, body_with(container={})),
    (BODY, container_with(name=None)),
    (BODY, container_with(seen_at=None)),
    (BODY, container_with(seen_at=2**62)),
    (BODY, container_with(started_at="then")),
    (BODY, container_with(exit_code="0")),
    (BODY, container_with(ports=[{}])),
    (BODY, container_with(ports=1)),
    (DUE, 2**63),
    (DUE, "now"),
    (OUTPUT, ["lines"]),
    (OUTPUT, "lines"),
]


def assert_kept_aside(connection: apsw.Connection, record: Record) -> None:
    """The record is kept as it is, and no listing shows it."""
    assert records.get(connection, JOB, record.id) == record
    assert records.in_feed(connection, PLACE.feed, 0, 10) == [(PLACE.seq, record)]
    assert listed(connection) == 0
    assert connection.execute("SELECT count(*) FROM output").get == 0


@pytest.mark.parametrize(("place", "value"), STRANGE)
def test_what_cannot_be_read_is_kept_and_handed_on_and_not_listed(place: int, value: Any) -> None:
    elements = said(a_record())
    elements[place] = value
    strange = changed(a_record(), elements)
    with store() as connection:
        records.put(connection, strange, PLACE)
        assert_kept_aside(connection, strange)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x90", b"\x80", b"\xc0", b"\xa1x", ormsgpack.packb([None] * 9)],
)
def test_a_body_that_is_none_is_kept_as_well(body: bytes) -> None:
    record = Record(JOB, bytes(16), 1, 1, NODE, None, body, SIGNATURE)
    with store() as connection:
        records.put(connection, record, PLACE)
        assert_kept_aside(connection, record)


@given(st.binary())
def test_garbage_is_kept_and_breaks_nothing(body: bytes) -> None:
    record = Record(JOB, bytes(16), 1, 1, NODE, None, body, SIGNATURE)
    with store() as connection:
        records.put(connection, record, PLACE)
        assert_kept_aside(connection, record)


def test_a_body_in_other_bytes_than_this_version_writes_stays_in_those_bytes() -> None:
    """The signature covers the bytes: written anew they would not be its writer's any more."""
    first = a_record()
    assert first.body is not None
    # The array's length in 3 bytes instead of 1, as MessagePack allows.
    longer = b"\xdc\x00\x0a" + first.body[1:]
    assert ormsgpack.unpackb(longer) == said(first)
    record = Record(JOB, first.id, 1, 2, NODE, None, longer, SIGNATURE)
    with store() as connection:
        records.put(connection, record, PLACE)
        assert_kept_aside(connection, record)


@pytest.mark.parametrize(("id_", "epoch"), [(b"short", 1), (bytes(17), 1), (bytes(16), 0)])
def test_a_job_needs_its_id_and_an_owner(id_: bytes, epoch: int) -> None:
    record = Record(JOB, id_, epoch, 1, NODE, None, a_record().body, SIGNATURE)
    with store() as connection:
        records.put(connection, record, PLACE)
        assert_kept_aside(connection, record)


def test_what_can_be_read_again_is_listed_again_and_the_other_way_about() -> None:
    readable = a_record(new_job())
    strange = changed(readable, ["paused", *said(readable)[1:]])
    with store() as connection:
        for record, number in ((strange, 0), (readable, 1), (strange, 0), (readable, 1)):
            records.put(connection, record, PLACE)
            assert listed(connection) == number
            assert records.in_feed(connection, PLACE.feed, 0, 10) == [(PLACE.seq, record)]


def test_a_record_shows_what_the_row_says() -> None:
    job = job_in(Status.COMPLETE)
    with store() as connection:
        records.put(connection, a_record(job), PLACE)
        found = jobs.look_up(connection, job.id)
        assert found == (document(jobs.row(job)), b"sealed lines")
