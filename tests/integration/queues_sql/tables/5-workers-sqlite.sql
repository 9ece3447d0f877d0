CREATE TABLE eventperf_jobs (
	seq INTEGER NOT NULL, 
	ns BIGINT NOT NULL, 
	id VARCHAR(200) NOT NULL, 
	type VARCHAR(200) NOT NULL, 
	queue VARCHAR(200) NOT NULL, 
	priority INTEGER NOT NULL, 
	turn BIGINT NOT NULL, 
	state SMALLINT NOT NULL, 
	at DOUBLE NOT NULL, 
	tag DOUBLE NOT NULL, 
	created_at DOUBLE NOT NULL, 
	ready_at DOUBLE NOT NULL, 
	deadline_at DOUBLE, 
	held_key VARCHAR(64), 
	held_for VARCHAR(32), 
	payload BLOB NOT NULL, 
	facts TEXT, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	crashes INTEGER DEFAULT 0 NOT NULL, 
	token BIGINT DEFAULT 0 NOT NULL, 
	worker VARCHAR(200), 
	started_at DOUBLE, 
	finished_at DOUBLE, 
	cancel BOOLEAN DEFAULT false NOT NULL, 
	progress DOUBLE, 
	error TEXT, 
	result BLOB, 
	steps TEXT, 
	history TEXT, 
	PRIMARY KEY (seq)
);

CREATE INDEX eventperf_jobs_class ON eventperf_jobs (ns, queue, priority, tag, seq) WHERE state = 0;

CREATE INDEX eventperf_jobs_ended ON eventperf_jobs (ns, state, queue, finished_at) WHERE state IN (3, 4);

CREATE INDEX eventperf_jobs_fair ON eventperf_jobs (ns, queue, priority, turn, tag) WHERE state = 0;

CREATE UNIQUE INDEX eventperf_jobs_id ON eventperf_jobs (ns, id);

CREATE INDEX eventperf_jobs_parked ON eventperf_jobs (ns, state, type, at) WHERE state = 6;

CREATE INDEX eventperf_jobs_time ON eventperf_jobs (ns, state, at) WHERE state != 0;

CREATE TABLE eventperf_lanes (
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) NOT NULL, 
	priority INTEGER NOT NULL, 
	skipped INTEGER DEFAULT 0 NOT NULL, 
	PRIMARY KEY (ns, queue, priority)
);

CREATE TABLE eventperf_limits (
	ns BIGINT NOT NULL, 
	PRIMARY KEY (ns)
);

CREATE TABLE eventperf_links (
	ns BIGINT NOT NULL, 
	parent_id VARCHAR(200) NOT NULL, 
	child_id VARCHAR(200) NOT NULL, 
	ended BOOLEAN NOT NULL, 
	PRIMARY KEY (ns, parent_id, child_id)
);

CREATE INDEX eventperf_links_child ON eventperf_links (ns, child_id);

CREATE TABLE eventperf_minutes (
	n INTEGER NOT NULL, 
	ns BIGINT NOT NULL, 
	minute BIGINT NOT NULL, 
	facts TEXT NOT NULL, 
	PRIMARY KEY (n)
);

CREATE INDEX eventperf_minutes_at ON eventperf_minutes (ns, minute);

CREATE TABLE eventperf_queues (
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) NOT NULL, 
	paused BOOLEAN DEFAULT false NOT NULL, 
	credit INTEGER DEFAULT 0 NOT NULL, 
	PRIMARY KEY (ns, queue)
);

CREATE TABLE eventperf_schedules (
	ns BIGINT NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	slot DOUBLE DEFAULT (-1) NOT NULL, 
	asked_at DOUBLE NOT NULL, 
	PRIMARY KEY (ns, name)
);

CREATE TABLE eventperf_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);

CREATE TABLE eventperf_starts (
	n INTEGER NOT NULL, 
	ns BIGINT NOT NULL, 
	scope BIGINT NOT NULL, 
	turn BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	PRIMARY KEY (n)
);

CREATE INDEX eventperf_starts_at ON eventperf_starts (ns, scope, at);

CREATE TABLE eventperf_tags (
	ns BIGINT NOT NULL, 
	tag VARCHAR(200) NOT NULL, 
	job_seq INTEGER NOT NULL, 
	PRIMARY KEY (ns, tag, job_seq)
);

CREATE INDEX eventperf_tags_job ON eventperf_tags (job_seq);

CREATE TABLE eventperf_tallies (
	n INTEGER NOT NULL, 
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) NOT NULL, 
	bucket BIGINT NOT NULL, 
	waiting BIGINT DEFAULT 0 NOT NULL, 
	delayed BIGINT DEFAULT 0 NOT NULL, 
	active BIGINT DEFAULT 0 NOT NULL, 
	enqueued BIGINT DEFAULT 0 NOT NULL, 
	completed BIGINT DEFAULT 0 NOT NULL, 
	failed BIGINT DEFAULT 0 NOT NULL, 
	cancelled BIGINT DEFAULT 0 NOT NULL, 
	retried BIGINT DEFAULT 0 NOT NULL, 
	stalled BIGINT DEFAULT 0 NOT NULL, 
	dead BIGINT DEFAULT 0 NOT NULL, 
	replayed BIGINT DEFAULT 0 NOT NULL, 
	woke BIGINT DEFAULT 0 NOT NULL, 
	called BIGINT DEFAULT 0 NOT NULL, 
	runs BIGINT DEFAULT 0 NOT NULL, 
	run_s DOUBLE DEFAULT 0 NOT NULL, 
	trimmed BIGINT DEFAULT 0 NOT NULL, 
	lapsed BIGINT DEFAULT 0 NOT NULL, 
	PRIMARY KEY (n)
);

CREATE INDEX eventperf_tallies_ns ON eventperf_tallies (ns);

CREATE TABLE eventperf_unique (
	ns BIGINT NOT NULL, 
	held_key VARCHAR(64) NOT NULL, 
	job_id VARCHAR(200) NOT NULL, 
	until DOUBLE NOT NULL, 
	PRIMARY KEY (ns, held_key)
);

CREATE TABLE eventperf_workers (
	ns BIGINT NOT NULL, 
	id VARCHAR(200) NOT NULL, 
	queues TEXT NOT NULL, 
	types TEXT NOT NULL, 
	slots INTEGER NOT NULL, 
	lease_s DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	gone BOOLEAN DEFAULT false NOT NULL, 
	about TEXT, 
	PRIMARY KEY (ns, id)
);

INSERT INTO eventperf_schema (version) VALUES (5);
