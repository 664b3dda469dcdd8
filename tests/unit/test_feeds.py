"""Feeds: each run has its own, and whoever is told all of one knows all that it says."""

from __future__ import annotations

from contextlib import ExitStack, closing
from itertools import count
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.errors import StorageUnavailable
from container_manager.job import Job, Status
from container_manager.record import SHARED, Entry, Record
from container_manager.store import feeds, jobs, records
from container_manager.store.database import Database
from container_manager.store.feeds import OwnFeed
from container_manager.store.records import JOB, Place
from container_manager.store.schema import MIGRATIONS
from tests.unit.builders import NODE, NOW, container, job_in, new_job
from tests.unit.test_job_records import empty_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

A, B, C = (letter * 32 for letter in "abc")
RUN = "0123456789abcdef"
SIGNATURE = bytes(96)
DAY = 86_400_000_000


def store(content: bytes | None = None) -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", content or empty_store())
    return connection


def begun(connection: apsw.Connection, node: str = NODE, run: str = RUN) -> OwnFeed:
    """The feed of a run that has begun."""
    feed = feeds.own_feed(connection, node, run)
    feeds.begin_own(connection, feed)
    return feed


def thing(
    revision: int = 1, writer: str = A, *, id_: bytes = b"1", expires_at: int | None = None
) -> Record:
    body = b"%d by %s" % (revision, writer.encode())
    return Record("thing", id_, SHARED, revision, writer, expires_at, body, SIGNATURE)


def told(connection: apsw.Connection) -> dict[tuple[str, bytes], Record]:
    """All that a store knows, by what it is of."""
    things = [*connection.execute("SELECT kind, id FROM record")]
    things += [(JOB, key) for (key,) in connection.execute("SELECT id FROM job")]
    return {one: found for one in things if (found := records.get(connection, *one))}


def all_of(connection: apsw.Connection, feed: str, limit: int = 1000) -> list[Entry]:
    """A feed, read in parts of that size."""
    found: list[Entry] = []
    whole = False
    while not whole:
        after = found[-1].seq if found else 0
        part, whole = feeds.entries(connection, feed, after, limit)
        assert len(part) <= limit
        found += part
    return found


# A run's own feed


def test_a_first_start_writes_nothing_before_its_first_commit_does() -> None:
    with closing(store()) as connection:
        before = connection.serialize("main")
        feed = feeds.own_feed(connection, NODE, RUN)
        assert connection.serialize("main") == before
        assert (feed.id, feed.name, feed.seq) == (1, f"{NODE}.{RUN}", 0)
        assert feeds.vector(connection) == {}
        feeds.begin_own(connection, feed)
        assert feeds.vector(connection) == {feed.name: 0}
        assert feeds.parts(connection) == {}


def test_each_run_goes_on_in_a_feed_of_its_own_and_knows_how_far_the_last_one_came() -> None:
    with closing(store()) as connection:
        first = begun(connection, run="1" * 16)
        for _ in range(3):
            jobs.insert(connection, jobs.row(new_job(), first.next_place()))
        records.write(connection, "node", b"me", b"{}", NODE, first.next_place())
        second = feeds.own_feed(connection, NODE, "2" * 16)
        # Before its first commit as after it: who links with it at once is told no less.
        assert feeds.vector(connection) == {first.name: 4}
        assert feeds.parts(connection) == {}
        feeds.begin_own(connection, second)
        assert second.id != first.id
        assert feeds.vector(connection) == {first.name: 4, second.name: 0}
        assert feeds.parts(connection) == {}
        assert len(all_of(connection, first.name)) == 4
        begun(connection, run="3" * 16)
        assert feeds.vector(connection)[first.name] == 4


def test_a_run_that_has_moved_all_of_an_older_feed_still_knows_how_far_that_came() -> None:
    with closing(store()) as connection:
        first = begun(connection, run="1" * 16)
        job = new_job()
        stood = first.next_place()
        jobs.insert(connection, jobs.row(job, stood))
        second = begun(connection, run="2" * 16)
        jobs.update(connection, job.claimed(NOW), stood, second.next_place(), None)
        begun(connection, run="3" * 16)
        assert feeds.vector(connection) == {
            first.name: 1,
            second.name: 1,
            feeds.feed_name(NODE, "3" * 16): 0,
        }


def test_what_comes_back_of_an_older_run_is_a_part_until_all_has_come() -> None:
    """As after an older copy of the data directory was put back: the others know more of it."""
    with closing(store()) as connection:
        first = begun(connection, run="1" * 16)
        records.put(connection, thing(id_=b"1"), first.next_place())
        begun(connection, run="2" * 16)
        feeds.merge(connection, first.name, [Entry(5, thing(id_=b"2"))], 0, NOW)
        assert feeds.vector(connection)[first.name] == 1
        assert feeds.parts(connection) == {first.name: 5}
        begun(connection, run="3" * 16)
        assert feeds.vector(connection)[first.name] == 1
        feeds.merge(connection, first.name, [Entry(9, thing(id_=b"3"))], 9, NOW)
        assert feeds.vector(connection)[first.name] == 9
        assert feeds.parts(connection) == {}


def test_a_part_of_anothers_feed_is_not_held() -> None:
    with closing(store()) as connection:
        begun(connection)
        feed = feeds.feed_name(A, RUN)
        feeds.merge(connection, feed, [Entry(3, thing(id_=b"1"))], 0, NOW)
        assert feeds.vector(connection)[feed] == 0
        assert feeds.parts(connection) == {feed: 3}
        feeds.merge(connection, feed, [Entry(5, thing(id_=b"2"))], 5, NOW)
        assert feeds.vector(connection)[feed] == 5
        assert feeds.parts(connection) == {}
        begun(connection, run="2" * 16)  # which is no reason to hold more of it
        assert feeds.vector(connection)[feed] == 5


def test_places_are_told_of_once_they_are_committed_and_never_go_back() -> None:
    feed, grown = OwnFeed(1, "x", 5), []
    feed.on_commit(lambda: grown.append(feed.seq))
    places = [feed.next_place(), *feed.next_places(2)]
    assert places == [Place(1, 6), Place(1, 7), Place(1, 8)]
    assert feed.seq == 5
    for seq in (7, 6, 7, 8):
        feed.committed(seq)
    assert grown == [7, 8]


async def test_on_a_full_disk_a_run_begins_with_the_first_commit_that_succeeds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.sqlite"
    database = Database(path, MIGRATIONS)
    try:
        pages = await database.write(lambda c: c.pragma("page_count"))
        await database.write(lambda c: c.pragma("max_page_count", pages))
        feed = database.read(lambda c: feeds.own_feed(c, NODE, RUN))
        database.begin_with(lambda c: feeds.begin_own(c, feed))
        assert database.read(feeds.vector) == {}
        large = jobs.row(new_job(arguments=["x" * 20_000]), feed.next_place())
        with pytest.raises(StorageUnavailable):
            await database.append(jobs.TABLE, large)
        assert database.read(feeds.vector) == {}
        await database.write(lambda c: c.pragma("max_page_count", 10_000))
        place = feed.next_place()
        await database.append(jobs.TABLE, jobs.row(new_job(), place))
        assert database.read(feeds.vector) == {feed.name: place.seq}
    finally:
        await database.close()


# A store from before there were feeds


OLD = (
    "id, node, epoch, revision, status, phase, followed, created_at, updated_at, spec, sealed_env,"
    " body, removal_due"
)


async def old_store(path: Path, older: Sequence[Job]) -> None:
    database = Database(path, MIGRATIONS[:2])
    insert = f"INSERT INTO job ({OLD}) VALUES ({','.join('?' * 13)})"
    await database.write(lambda c: c.executemany(insert, [jobs.row(job)[:13] for job in older]))
    await database.close()


async def test_jobs_from_before_are_the_first_runs_in_the_order_of_their_last_change(
    tmp_path: Path,
) -> None:
    older = [
        new_job().cancelling(NOW + DAY),
        new_job(),
        job_in(Status.RUNNING),
        job_in(Status.COMPLETE),
        job_in(Status.LOST),
    ]
    path = tmp_path / "jobs.sqlite"
    await old_store(path, older)
    for run in ("1" * 16, "2" * 16):  # the first of them ends without having written anything
        database = Database(path, MIGRATIONS)
        feed = database.read(lambda c, run=run: feeds.own_feed(c, NODE, run))
        assert (feed.id, feed.seq) == (1, len(older))
        assert database.read(feeds.vector) == {}  # nobody is told of a feed without a name
        assert database.read(feeds.parts) == {}
        await database.close()
    database = Database(path, MIGRATIONS)
    try:
        feed = database.read(lambda c: feeds.own_feed(c, NODE, RUN))
        database.begin_with(lambda c: feeds.begin_own(c, feed))
        new = new_job()
        place = feed.next_place()
        assert place == Place(1, len(older) + 1)
        await database.append(jobs.TABLE, jobs.row(new, place))
        entries = database.read(lambda c: all_of(c, feed.name))
        assert [one.seq for one in entries] == list(range(1, len(older) + 2))
        ids = [jobs.job_id_of(one.record.id) for one in entries]
        assert ids[0] == min(older[1:], key=lambda job: job.id).id
        assert ids[-2:] == [older[0].id, new.id]
        assert database.read(feeds.vector) == {feed.name: len(older) + 1}
        for job in older:
            assert database.read(lambda c, job=job: jobs.get(c, job.id)) == job
        assert database.read(lambda c: c.execute("PRAGMA integrity_check").get) == "ok"
        assert database.read(lambda c: c.execute("PRAGMA freelist_count").get) == 0
    finally:
        await database.close()


async def test_jobs_from_before_that_are_done_with_are_forgotten_by_everybody_one_day(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.sqlite"
    open_, done, followed = new_job(), job_in(Status.LOST), job_in(Status.COMPLETE)
    await old_store(path, [open_, done, followed])
    database = Database(path, MIGRATIONS)
    try:
        expiries = database.read(lambda c: dict(c.execute("SELECT id, expires_at FROM job")))
    finally:
        await database.close()
    by_job = {jobs.job_id_of(key): expires_at for key, expires_at in expiries.items()}
    assert by_job == {open_.id: None, followed.id: None, done.id: done.updated_at + 365 * DAY}


# Telling it


class Writer:
    """A node that writes its feed, and changes what others have written."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.connection = store()
        self.feed = begun(self.connection, node)

    def write(self, id_: bytes, times: int = 1) -> None:
        """Write a shared record anew."""
        for _ in range(times):
            standing = records.find(self.connection, "thing", id_)
            revision = 1 if standing is None else standing.revision + 1
            place = self.feed.next_place()
            if standing is not None and standing.place.feed != place.feed:
                records.leave(self.connection, "thing", id_, standing.place)
            records.put(self.connection, thing(revision, self.node, id_=id_), place)

    def hear(self, other: Writer, feed: str | None = None, limit: int = 1000) -> None:
        """Take in all that another has of a feed, by default of its own."""
        name = feed or other.feed.name
        entries = all_of(other.connection, name, limit)
        holds = max((one.seq for one in entries), default=0)
        for start in range(0, len(entries), limit):
            part = entries[start : start + limit]
            last = start + limit >= len(entries)
            feeds.merge(self.connection, name, part, holds if last else 0, NOW)


def writers(stack: ExitStack, *nodes: str) -> list[Writer]:
    made = [Writer(node) for node in nodes]
    for writer in made:
        stack.enter_context(closing(writer.connection))
    return made


def write_of_all_kinds(writer: Writer) -> None:
    """Jobs and other records, some of them changed since."""
    connection, feed = writer.connection, writer.feed
    made = [(new_job(), feed.next_place()) for _ in range(7)]
    for job, place in made:
        jobs.insert(connection, jobs.row(job, place))
    for job, place in made[::2]:
        jobs.update(connection, job.claimed(NOW), place, feed.next_place(), None)
    for number in range(6):
        writer.write(b"%d" % (number % 4))


@given(st.integers(1, 20))
def test_parts_of_any_size_tell_the_same(limit: int) -> None:
    with ExitStack() as stack:
        a, b = writers(stack, A, B)
        write_of_all_kinds(a)
        assert all_of(a.connection, a.feed.name, limit) == all_of(a.connection, a.feed.name)
        b.hear(a, limit=limit)
        assert told(b.connection) == told(a.connection)
        assert feeds.vector(b.connection)[a.feed.name] == a.feed.next_place().seq - 1
        assert feeds.parts(b.connection) == {}


def test_a_feed_that_nobody_knows_is_empty() -> None:
    with closing(store()) as connection:
        assert feeds.entries(connection, f"{A}.{RUN}", 0, 5) == ([], True)
        assert feeds.adopt(connection, f"{A}.{RUN}", [Place(1, 1)]) == 0


def test_meeting_somebody_is_noted_once_and_takes_nothing_back() -> None:
    with closing(store()) as connection:
        begun(connection)
        feed = feeds.feed_name(A, RUN)
        feeds.meet(connection, feed)
        assert feeds.vector(connection)[feed] == 0
        feeds.merge(connection, feed, [Entry(1, thing())], 1, NOW)
        feeds.meet(connection, feed)
        assert feeds.vector(connection)[feed] == 1


# Merging

revisions = st.integers(1, 3)
tellings = st.builds(
    lambda revision, writer, id_, expires_at: thing(
        revision, writer, id_=id_, expires_at=expires_at
    ),
    revisions,
    st.sampled_from([A, B]),
    st.sampled_from([b"1", b"2"]),
    st.none() | st.integers(NOW - 1, NOW + 2),
)


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 6), tellings), max_size=12),
    st.randoms(),
)
def test_the_same_tellings_come_to_the_same_in_any_order_of_arrival(
    arrivals: list[tuple[str, int, Record]], rng: Any
) -> None:
    """Two nodes that write one shared record at once, told in whatever order: equal everywhere."""
    ends = []
    for _ in range(3):
        with closing(store()) as connection:
            begun(connection)
            for node, seq, record in arrivals:
                feeds.merge(connection, feeds.feed_name(node, RUN), [Entry(seq, record)], 0, NOW)
            ends.append(told(connection))
        rng.shuffle(arrivals)
    assert ends[0] == ends[1] == ends[2]
    for (kind, id_), record in ends[0].items():
        same = [one for _, _, one in arrivals if (one.kind, one.id) == (kind, id_)]
        highest = max(same, key=lambda one: one.rank)
        assert record == (highest.dropped() if highest.expired(NOW) else highest)


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.integers(1, 6), tellings),
        min_size=1,
        max_size=12,
    )
)
def test_whoever_is_told_of_a_feed_behind_a_place_is_told_of_all_that_was_written_behind_it(
    arrivals: list[tuple[str, int, Record]],
) -> None:
    with closing(store()) as connection:
        begun(connection)
        written: dict[str, dict[int, bytes]] = {}
        for node, seq, record in arrivals:
            places = written.setdefault(feeds.feed_name(node, RUN), {})
            if places.setdefault(seq, record.id) == record.id:  # a place is one thing's alone
                feeds.merge(connection, feeds.feed_name(node, RUN), [Entry(seq, record)], 0, NOW)
        for feed, places in written.items():
            for after in range(7):
                entries, whole = feeds.entries(connection, feed, after, 1000)
                assert whole
                behind = {id_ for seq, id_ in places.items() if seq > after}
                assert behind <= {one.record.id for one in entries}


def test_two_who_write_at_once_and_a_third_who_hears_either_first() -> None:
    with ExitStack() as stack:
        a, b, c, d = writers(stack, A, B, C, "d" * 32)
        a.write(b"1")
        b.write(b"1")
        c.hear(a)
        c.hear(b)
        d.hear(b)
        d.hear(a)
        a.hear(b)
        b.hear(a)
        expected = thing(1, B)
        assert [told(one.connection) for one in (a, b, c, d)] == [{("thing", b"1"): expected}] * 4


def test_taking_in_gives_what_counts_from_now_on() -> None:
    feed = feeds.feed_name(A, RUN)
    with closing(store()) as connection:
        begun(connection)
        first, second, other = thing(1), thing(2), thing(1, B, id_=b"2")
        assert feeds.merge(connection, feed, [Entry(1, first)], 0, NOW) == [first]
        assert feeds.merge(connection, feed, [Entry(1, first)], 0, NOW) == []
        both = [Entry(2, second), Entry(3, other)]
        assert feeds.merge(connection, feed, both, 3, NOW) == [second, other]
        # What is held already is not looked at again.
        assert feeds.merge(connection, feed, [Entry(3, thing(9))], 3, NOW) == []
        assert feeds.merge(connection, feed, [Entry(4, first)], 4, NOW) == []
        assert [one.seq for one in all_of(connection, feed)] == [3, 4]


# Husks


def test_what_is_written_anew_elsewhere_is_still_told_of_in_the_older_feed() -> None:
    with ExitStack() as stack:
        a, b, c = writers(stack, A, B, C)
        a.write(b"1")
        a.write(b"2")
        b.hear(a)
        b.write(b"1")
        # B hands on what A has written: the newer writing stands for the older one.
        c.hear(b, a.feed.name)
        assert told(c.connection) == told(b.connection)
        assert told(c.connection)["thing", b"1"] == thing(2, B)
        assert feeds.vector(c.connection)[a.feed.name] == 2
        # And the other way about: what comes too late stands where it came from all the same.
        a.hear(b)
        c.hear(b)
        c.hear(a)
        assert told(c.connection) == told(a.connection)


def test_a_feed_has_one_husk_of_a_thing_at_its_last_place() -> None:
    with closing(store()) as connection:
        begun(connection)
        for seq in (3, 9, 3, 5):
            records.leave(connection, "thing", b"1", Place(1, seq))
        assert list(connection.execute("SELECT seq, id FROM husk")) == [(9, b"1")]


def test_a_thing_does_not_go_back_in_a_feed() -> None:
    feed = feeds.feed_name(A, RUN)
    with closing(store()) as connection:
        begun(connection)
        feeds.merge(connection, feed, [Entry(9, thing(1))], 0, NOW)
        feeds.merge(connection, feed, [Entry(3, thing(2))], 0, NOW)
        assert feeds.entries(connection, feed, 5, 10) == ([Entry(9, thing(2))], True)


# Adopting


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_part_that_is_adopted_is_told_on_in_the_own_feed(limit: int) -> None:
    with ExitStack() as stack:
        a, b, c = writers(stack, A, B, C)
        write_of_all_kinds(a)
        entries = all_of(a.connection, a.feed.name)
        part = entries[: len(entries) // 2]
        feeds.merge(b.connection, a.feed.name, part, 0, NOW)
        assert feeds.parts(b.connection) == {a.feed.name: part[-1].seq}
        adopted, rounds = limit, count()
        while adopted == limit:
            places = b.feed.next_places(limit)
            adopted = feeds.adopt(b.connection, a.feed.name, places)
            assert next(rounds) < 100
        assert feeds.parts(b.connection) == {}
        assert [one.record for one in all_of(b.connection, b.feed.name)] == [
            one.record for one in part
        ]
        c.hear(b)
        assert told(c.connection) == told(b.connection)


def test_what_is_held_is_not_adopted() -> None:
    with ExitStack() as stack:
        a, b = writers(stack, A, B)
        write_of_all_kinds(a)
        b.hear(a)
        assert feeds.adopt(b.connection, a.feed.name, b.feed.next_places(10)) == 0
        assert all_of(b.connection, b.feed.name) == []


# What has had its time


def test_what_has_had_its_time_does_not_rise_again() -> None:
    feed, expires = feeds.feed_name(A, RUN), NOW + 5
    told_twice = [Entry(1, thing(1, expires_at=expires))]
    with closing(store()) as connection:
        begun(connection)
        feeds.merge(connection, feed, told_twice, 0, NOW)
        assert told(connection)["thing", b"1"].body is not None
        (gone,) = feeds.merge(connection, feed, told_twice, 0, expires)
        assert gone == told_twice[0].record.dropped()
        assert told(connection)["thing", b"1"] == gone
        # An older writing counts less than what was dropped, and so does the same one.
        older = [Entry(2, thing(1, "0" * 32)), *told_twice]
        assert feeds.merge(connection, feed, older, 0, NOW) == []
        # A newer one counts.
        newer = thing(2)
        assert feeds.merge(connection, feed, [Entry(3, newer)], 0, expires) == [newer]


def test_what_another_has_dropped_before_its_time_stays() -> None:
    feed, full = feeds.feed_name(A, RUN), thing(1, expires_at=NOW + 5)
    with closing(store()) as connection:
        begun(connection)
        feeds.merge(connection, feed, [Entry(1, full)], 0, NOW)
        assert feeds.merge(connection, feed, [Entry(2, full.dropped())], 0, NOW) == []
        assert told(connection)["thing", b"1"] == full


def test_what_is_left_is_forgotten_in_the_end_with_all_its_places() -> None:
    with closing(store()) as connection:
        feed = begun(connection)
        unreadable = Record(JOB, bytes(16), 1, 1, A, NOW + 1, b"of a later version", SIGNATURE)
        lasting = thing(id_=b"lasting")
        for record in (thing(1, expires_at=NOW), unreadable, lasting):
            records.leave(connection, record.kind, record.id, Place(9, feed.next_place().seq))
            records.put(connection, record, feed.next_place())
        records.drop(connection, "thing", b"1")
        assert not records.any_dropped(connection, NOW)
        for rest in (2, 1):
            assert records.any_dropped(connection, NOW + 2)
            records.forget_dropped(connection, NOW + 2, limit=1)
            assert len(told(connection)) == rest
            assert connection.execute("SELECT count(*) FROM husk").get == rest
        assert not records.any_dropped(connection, NOW + 2)
        assert told(connection) == {("thing", b"lasting"): lasting}


def outdated(connection: apsw.Connection, now: int) -> list[bytes]:
    return jobs.outdated(connection, NODE, now=now, before=now, most=1000, limit=100)


def removed(job: Job) -> Job:
    return job.observed(container("removed"), NOW)


def test_who_has_met_nobody_forgets_a_job_and_all_places_at_which_it_stood() -> None:
    with closing(store()) as connection:
        first = begun(connection, run="1" * 16)
        job = job_in(Status.COMPLETE)
        stood = first.next_place()
        jobs.insert(connection, jobs.row(job, stood))
        second = begun(connection, run="2" * 16)
        jobs.update(connection, removed(job), stood, second.next_place(), NOW + DAY)
        assert connection.execute("SELECT count(*) FROM husk").get == 1
        assert jobs.forget(connection, NODE, outdated(connection, NOW + 1)) == 1
        assert told(connection) == {}
        assert connection.execute("SELECT count(*) FROM husk").get == 0


def test_who_has_met_others_keeps_that_a_job_was_there() -> None:
    with closing(store()) as connection:
        feed = begun(connection)
        feeds.meet(connection, feeds.feed_name(A, RUN))
        job = removed(job_in(Status.COMPLETE))
        jobs.insert(connection, jobs.row(job, feed.next_place(), NOW + DAY))
        key = jobs.row(job)[0]
        before = told(connection)[JOB, key]
        jobs.set_output(connection, job.id, b"sealed")
        assert jobs.forget(connection, NODE, outdated(connection, NOW + 1)) == 1
        after = told(connection)[JOB, key]
        assert after.body is None
        assert after.rank[:3] == before.rank[:3]
        assert jobs.get(connection, job.id) is None
        assert jobs.output(connection, job.id) is None
        (entry,) = all_of(connection, feed.name)
        assert entry == Entry(1, after)


def test_a_job_that_has_had_its_time_goes_however_it_stands_and_one_taken_up_again_stays() -> None:
    """Another node's job that expires though it runs is a fault; here it may not stay for ever."""
    with closing(store()) as connection:
        feed = begun(connection)
        feeds.meet(connection, feeds.feed_name(A, RUN))
        runs, failed = job_in(Status.RUNNING), removed(job_in(Status.FAILED))
        jobs.insert(connection, jobs.row(runs, feed.next_place(), NOW))
        stood = feed.next_place()
        jobs.insert(connection, jobs.row(failed, stood, NOW))
        keys = outdated(connection, NOW)
        assert len(keys) == 2
        jobs.update(connection, failed.retried(NOW), stood, feed.next_place(), None)
        assert jobs.forget(connection, NODE, keys) == 1
        assert outdated(connection, NOW) == []
        assert jobs.get(connection, failed.id) is not None


def test_writing_the_same_again_is_no_news() -> None:
    with closing(store()) as connection:
        first = begun(connection, run="1" * 16)
        assert records.write(connection, "node", b"me", b"1", NODE, first.next_place())
        assert not records.write(connection, "node", b"me", b"1", NODE, first.next_place())
        second = begun(connection, run="2" * 16)
        assert records.write(connection, "node", b"me", b"2", NODE, second.next_place())
        found = records.get(connection, "node", b"me")
        assert found is not None
        assert (found.epoch, found.revision, found.body) == (1, 2, b"2")
        assert [one.record for one in all_of(connection, first.name)] == [found]
        assert records.of_kind(connection, "node") == [found]
