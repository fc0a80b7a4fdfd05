-- State of a coordinator. The truth is in event: entries of the log with the statements behind them. The other tables are indexes over
-- it, the log's hashes, or belong to blobs.
-- SQLite reads INTEGER PRIMARY KEY as its row number, which makes the appended tables plain appends.

CREATE TABLE checkpoint (
    id      SMALLINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    size    BIGINT NOT NULL,
    note    TEXT   NOT NULL,
    hashes  BLOB NOT NULL
);

-- Full runs of 256 stored hashes. Those of the run that is not full yet are in the checkpoint, which every commit writes anyway.
CREATE TABLE log_hashes (
    run    INTEGER PRIMARY KEY,
    hashes BLOB NOT NULL
);

-- One row an entry of the log. Entry comes before the long columns, so that reading many entries does not read those.
CREATE TABLE event (
    idx       INTEGER PRIMARY KEY,
    task      BLOB,
    kind      SMALLINT NOT NULL,
    at        BIGINT NOT NULL,
    entry     BLOB NOT NULL,
    statement BLOB,
    extra     BLOB
);
CREATE INDEX event_by_task ON event (task, idx) WHERE task IS NOT NULL;

CREATE TABLE task (
    task          BLOB PRIMARY KEY,
    requester     BLOB NOT NULL,
    submitted_idx BIGINT NOT NULL,
    ended_at      BIGINT,
    swept         SMALLINT NOT NULL DEFAULT 0
);
CREATE INDEX task_open ON task (submitted_idx) WHERE ended_at IS NULL;
CREATE INDEX task_unswept ON task (ended_at) WHERE ended_at IS NOT NULL AND swept = 0;

CREATE TABLE blob (
    id         BLOB PRIMARY KEY,
    owner      BLOB NOT NULL,
    size_bytes BIGINT NOT NULL,
    stored_at  BIGINT NOT NULL,
    body       BLOB
);
CREATE INDEX blob_by_age ON blob (stored_at);

CREATE TABLE blob_use (
    blob BLOB NOT NULL REFERENCES blob (id),
    task BLOB NOT NULL REFERENCES task (task),
    PRIMARY KEY (blob, task)
);
CREATE INDEX blob_use_by_task ON blob_use (task);

CREATE TABLE node (
    node        BLOB PRIMARY KEY,
    valid_until BIGINT NOT NULL,
    standing    BLOB NOT NULL
);
