CREATE TABLE eventperf_jobs (
	seq BIGINT NOT NULL AUTO_INCREMENT, 
	ns BIGINT NOT NULL, 
	id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	type VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	queue VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
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
	payload LONGBLOB NOT NULL, 
	facts LONGTEXT CHARACTER SET utf8mb4, 
	attempts INTEGER NOT NULL DEFAULT 0, 
	crashes INTEGER NOT NULL DEFAULT 0, 
	token BIGINT NOT NULL DEFAULT 0, 
	worker VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, 
	started_at DOUBLE, 
	finished_at DOUBLE, 
	cancel BOOL NOT NULL DEFAULT false, 
	progress DOUBLE, 
	error LONGTEXT CHARACTER SET utf8mb4, 
	result LONGBLOB, 
	steps LONGTEXT CHARACTER SET utf8mb4, 
	`history` LONGTEXT CHARACTER SET utf8mb4, 
	PRIMARY KEY (seq)
)ENGINE=InnoDB;

CREATE INDEX eventperf_jobs_ended ON eventperf_jobs (ns, state, queue, finished_at);

CREATE UNIQUE INDEX eventperf_jobs_id ON eventperf_jobs (ns, id);

CREATE INDEX eventperf_jobs_next ON eventperf_jobs (ns, state, queue, priority, tag, seq);

CREATE INDEX eventperf_jobs_parked ON eventperf_jobs (ns, state, type, at);

CREATE INDEX eventperf_jobs_time ON eventperf_jobs (ns, state, at);

CREATE INDEX eventperf_jobs_turn ON eventperf_jobs (ns, state, queue, priority, turn, tag);

CREATE TABLE eventperf_lanes (
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	priority INTEGER NOT NULL, 
	skipped INTEGER NOT NULL DEFAULT 0, 
	PRIMARY KEY (ns, queue, priority)
)ENGINE=InnoDB;

CREATE TABLE eventperf_limits (
	ns BIGINT NOT NULL, 
	PRIMARY KEY (ns)
)ENGINE=InnoDB;

CREATE TABLE eventperf_links (
	ns BIGINT NOT NULL, 
	parent_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	child_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	ended BOOL NOT NULL, 
	PRIMARY KEY (ns, parent_id, child_id)
)ENGINE=InnoDB;

CREATE INDEX eventperf_links_child ON eventperf_links (ns, child_id);

CREATE TABLE eventperf_minutes (
	n BIGINT NOT NULL AUTO_INCREMENT, 
	ns BIGINT NOT NULL, 
	minute BIGINT NOT NULL, 
	facts LONGTEXT CHARACTER SET utf8mb4 NOT NULL, 
	PRIMARY KEY (n)
)ENGINE=InnoDB;

CREATE INDEX eventperf_minutes_at ON eventperf_minutes (ns, minute);

CREATE TABLE eventperf_queues (
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	paused BOOL NOT NULL DEFAULT false, 
	credit INTEGER NOT NULL DEFAULT 0, 
	PRIMARY KEY (ns, queue)
)ENGINE=InnoDB;

CREATE TABLE eventperf_schedules (
	ns BIGINT NOT NULL, 
	name VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	slot DOUBLE NOT NULL DEFAULT (-1), 
	asked_at DOUBLE NOT NULL, 
	PRIMARY KEY (ns, name)
)ENGINE=InnoDB;

CREATE TABLE eventperf_schema (
	version INTEGER NOT NULL AUTO_INCREMENT, 
	PRIMARY KEY (version)
);

CREATE TABLE eventperf_starts (
	n BIGINT NOT NULL AUTO_INCREMENT, 
	ns BIGINT NOT NULL, 
	scope BIGINT NOT NULL, 
	turn BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	PRIMARY KEY (n)
)ENGINE=InnoDB;

CREATE INDEX eventperf_starts_at ON eventperf_starts (ns, scope, at);

CREATE TABLE eventperf_tags (
	ns BIGINT NOT NULL, 
	tag VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	job_seq BIGINT NOT NULL, 
	PRIMARY KEY (ns, tag, job_seq)
)ENGINE=InnoDB;

CREATE INDEX eventperf_tags_job ON eventperf_tags (job_seq);

CREATE TABLE eventperf_tallies (
	n BIGINT NOT NULL AUTO_INCREMENT, 
	ns BIGINT NOT NULL, 
	queue VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	bucket BIGINT NOT NULL, 
	waiting BIGINT NOT NULL DEFAULT 0, 
	`delayed` BIGINT NOT NULL DEFAULT 0, 
	active BIGINT NOT NULL DEFAULT 0, 
	enqueued BIGINT NOT NULL DEFAULT 0, 
	completed BIGINT NOT NULL DEFAULT 0, 
	failed BIGINT NOT NULL DEFAULT 0, 
	cancelled BIGINT NOT NULL DEFAULT 0, 
	retried BIGINT NOT NULL DEFAULT 0, 
	stalled BIGINT NOT NULL DEFAULT 0, 
	dead BIGINT NOT NULL DEFAULT 0, 
	replayed BIGINT NOT NULL DEFAULT 0, 
	woke BIGINT NOT NULL DEFAULT 0, 
	called BIGINT NOT NULL DEFAULT 0, 
	runs BIGINT NOT NULL DEFAULT 0, 
	run_s DOUBLE NOT NULL DEFAULT 0, 
	trimmed BIGINT NOT NULL DEFAULT 0, 
	lapsed BIGINT NOT NULL DEFAULT 0, 
	PRIMARY KEY (n)
)ENGINE=InnoDB;

CREATE INDEX eventperf_tallies_ns ON eventperf_tallies (ns);

CREATE TABLE eventperf_unique (
	ns BIGINT NOT NULL, 
	held_key VARCHAR(64) NOT NULL, 
	job_id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	until DOUBLE NOT NULL, 
	PRIMARY KEY (ns, held_key)
)ENGINE=InnoDB;

CREATE TABLE eventperf_workers (
	ns BIGINT NOT NULL, 
	id VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, 
	queues LONGTEXT CHARACTER SET utf8mb4 NOT NULL, 
	types LONGTEXT CHARACTER SET utf8mb4 NOT NULL, 
	slots INTEGER NOT NULL, 
	lease_s DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	gone BOOL NOT NULL DEFAULT false, 
	about LONGTEXT CHARACTER SET utf8mb4, 
	PRIMARY KEY (ns, id)
)ENGINE=InnoDB;

INSERT INTO eventperf_schema (version) VALUES (5);
