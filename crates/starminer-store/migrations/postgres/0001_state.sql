-- State of a coordinator. The truth is in event: entries of the log with the statements behind them. The other tables are indexes over
-- it, the log's hashes, or belong to blobs.

CREATE TABLE checkpoint (
    id      SMALLINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    size    BIGINT NOT NULL,
    note    TEXT   NOT NULL,
    hashes  BYTEA NOT NULL
);

-- Full runs of 256 stored hashes. Those of the run that is not full yet are in the checkpoint, which every commit writes anyway.
CREATE TABLE log_hashes (
    run    BIGINT PRIMARY KEY,
    hashes BYTEA NOT NULL
);

-- One row an entry of the log. Entry comes before the long columns, so that reading many entries does not read those.
CREATE TABLE event (
    idx       BIGINT PRIMARY KEY,
    task      BYTEA,
    kind      SMALLINT NOT NULL,
    at        BIGINT NOT NULL,
    entry     BYTEA NOT NULL,
    statement BYTEA,
    extra     BYTEA
);
CREATE INDEX event_by_task ON event (task, idx) WHERE task IS NOT NULL;

CREATE TABLE task (
    task          BYTEA PRIMARY KEY,
    requester     BYTEA NOT NULL,
    submitted_idx BIGINT NOT NULL,
    ended_at      BIGINT,
    swept         SMALLINT NOT NULL DEFAULT 0
);
CREATE INDEX task_open ON task (submitted_idx) WHERE ended_at IS NULL;
CREATE INDEX task_unswept ON task (ended_at) WHERE ended_at IS NOT NULL AND swept = 0;

CREATE TABLE blob (
    id         BYTEA PRIMARY KEY,
    owner      BYTEA NOT NULL,
    size_bytes BIGINT NOT NULL,
    stored_at  BIGINT NOT NULL,
    body       BYTEA
);
CREATE INDEX blob_by_age ON blob (stored_at);

CREATE TABLE blob_use (
    blob BYTEA NOT NULL REFERENCES blob (id),
    task BYTEA NOT NULL REFERENCES task (task),
    PRIMARY KEY (blob, task)
);
CREATE INDEX blob_use_by_task ON blob_use (task);

CREATE TABLE node (
    node        BYTEA PRIMARY KEY,
    valid_until BIGINT NOT NULL,
    standing    BYTEA NOT NULL
);
