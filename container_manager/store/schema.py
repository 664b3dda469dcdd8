"""The tables of the store, by the versions in which they came to be as they are."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE job (
        id          BLOB PRIMARY KEY CHECK (length(id) = 16),
        node        TEXT NOT NULL,
        epoch       INTEGER NOT NULL CHECK (epoch >= 1),
        revision    INTEGER NOT NULL CHECK (revision >= 1),
        status      TEXT NOT NULL CHECK (
            status IN ('pending', 'running', 'complete', 'failed', 'cancelled', 'lost')),
        phase       TEXT CHECK ((phase IS NULL) = (status <> 'running') AND phase IN (
            'placing', 'pulling', 'creating', 'starting', 'verifying', 'running')),
        followed    INTEGER NOT NULL CHECK (followed IN (0, 1)),
        created_at  INTEGER NOT NULL,
        updated_at  INTEGER NOT NULL,
        spec        BLOB NOT NULL,
        sealed_env  BLOB,
        body        BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX job_status ON job (status, id);
    CREATE INDEX job_followed ON job (id) WHERE followed = 1;

    CREATE TABLE idempotency (
        key         TEXT PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        job_id      BLOB NOT NULL CHECK (length(job_id) = 16),
        expires_at  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_expires_at ON idempotency (expires_at);
    """,
    # A job is followed as long as its container is there, ended or not; and it is done with when
    # there is nothing left of it but its row. A batch container that has ended stays for a day.
    """
    ALTER TABLE job ADD COLUMN removal_due INTEGER;
    UPDATE job SET followed = 1 WHERE status NOT IN ('pending', 'running')
        AND coalesce(json_extract(CAST(body AS TEXT), '$.container.state'), 'removed') <> 'removed';
    UPDATE job SET removal_due = updated_at + 86400000000 WHERE status NOT IN ('pending', 'running')
        AND json_extract(CAST(spec AS TEXT), '$.type') = 'batch'
        AND json_extract(CAST(body AS TEXT), '$.container.state') IN ('exited', 'dead');
    CREATE INDEX job_removal_due ON job (removal_due) WHERE removal_due IS NOT NULL;
    CREATE INDEX job_done ON job (updated_at)
        WHERE followed = 0 AND status NOT IN ('pending', 'running');

    CREATE TABLE output (
        job_id BLOB PRIMARY KEY CHECK (length(job_id) = 16),
        lines  BLOB NOT NULL
    ) STRICT;
    """,
    # What nodes tell each other. A feed is what one run of one node has written, in order; each row
    # stands at one place of one feed, and a husk marks a place that it stood at before. Of a job
    # that was dropped a record without a body stays for a while. What was there before there were
    # feeds belongs to the first one that is opened. How far the open feed, that of this store's own
    # last run, has come is not noted at each commit: its rows tell.
    """
    CREATE TABLE feed (
        id   INTEGER PRIMARY KEY,
        node TEXT NOT NULL,
        run  TEXT NOT NULL,
        seq  INTEGER NOT NULL CHECK (seq >= 0),
        open INTEGER NOT NULL DEFAULT 0 CHECK (open IN (0, 1)),
        UNIQUE (node, run)
    ) STRICT;
    INSERT INTO feed SELECT 1, '', '', count(*), 1 FROM job;

    ALTER TABLE job ADD COLUMN feed INTEGER NOT NULL DEFAULT 1 REFERENCES feed (id);
    ALTER TABLE job ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE job ADD COLUMN expires_at INTEGER;
    ALTER TABLE job ADD COLUMN signature BLOB;
    ALTER TABLE job ADD COLUMN extra BLOB;
    UPDATE job SET seq = numbered.seq FROM (
        SELECT id, row_number() OVER (ORDER BY updated_at, id) AS seq FROM job
    ) AS numbered WHERE job.id = numbered.id;
    -- How long jobs are kept is a setting that is not known here; their owner forgets them by it,
    -- and the others after a year at the latest.
    UPDATE job SET expires_at = updated_at + 31536000000000
        WHERE followed = 0 AND status NOT IN ('pending', 'running');
    CREATE INDEX job_feed ON job (feed, seq);
    CREATE INDEX job_expires_at ON job (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE record (
        kind       TEXT NOT NULL,
        id         BLOB NOT NULL,
        epoch      INTEGER NOT NULL CHECK (epoch >= 0),
        revision   INTEGER NOT NULL CHECK (revision >= 1),
        writer     TEXT NOT NULL,
        expires_at INTEGER,
        body       BLOB,
        signature  BLOB,
        digest     BLOB CHECK ((digest IS NULL) = (body IS NOT NULL)),
        feed       INTEGER NOT NULL REFERENCES feed (id),
        seq        INTEGER NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX record_feed ON record (feed, seq);
    CREATE INDEX record_expires_at ON record (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE husk (
        feed INTEGER NOT NULL REFERENCES feed (id),
        seq  INTEGER NOT NULL,
        kind TEXT NOT NULL,
        id   BLOB NOT NULL,
        PRIMARY KEY (feed, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX husk_of ON husk (kind, id, feed);
    """,
)
