CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL
) STRICT;

CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE users_groups (
    user_id INTEGER NOT NULL REFERENCES users (id),
    group_id INTEGER NOT NULL REFERENCES groups (id),
    PRIMARY KEY (user_id, group_id)
) STRICT;

CREATE TABLE groups_permissions (
    group_id INTEGER NOT NULL REFERENCES groups (id),
    permission TEXT NOT NULL,
    PRIMARY KEY (group_id, permission)
) STRICT;

-- The password of both is hunter42.
INSERT INTO users (id, name, password_hash) VALUES
    (1, 'ferris', '$argon2id$v=19$m=19456,t=2,p=1$VE0e3g7DalWHgDwou3nuRA$uC6TER156UQpk0lNQ5+jHM0l5poVjPA1he/Tyn9J4Zw'),
    (2, 'admin', '$argon2id$v=19$m=19456,t=2,p=1$VE0e3g7DalWHgDwou3nuRA$uC6TER156UQpk0lNQ5+jHM0l5poVjPA1he/Tyn9J4Zw');

INSERT INTO groups (id, name) VALUES (1, 'users'), (2, 'superusers');

INSERT INTO groups_permissions (group_id, permission) VALUES
    (1, 'protected.read'),
    (2, 'restricted.read');

INSERT INTO users_groups (user_id, group_id) VALUES (1, 1), (2, 1), (2, 2);
