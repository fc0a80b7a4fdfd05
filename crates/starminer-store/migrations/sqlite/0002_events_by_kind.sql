-- Events of no task, by the caller's number for their kind: they are few beside those of tasks, and some are looked up at the start.
CREATE INDEX event_by_kind ON event (kind, idx) WHERE task IS NULL;
