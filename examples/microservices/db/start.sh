#!/bin/sh
# Makes the database when the volume is empty, then becomes the server.
set -eu
data=/var/lib/postgresql/data
if [ ! -s $data/PG_VERSION ]; then
    initdb -D $data --auth-host=scram-sha-256 --auth-local=trust >/dev/null
    echo "host all all all scram-sha-256" >> $data/pg_hba.conf
    pg_ctl -D $data -o "-c listen_addresses=''" -w start >/dev/null
    psql -q -v password="$PASSWORD" postgres <<SQL
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE app OWNER app;
SQL
    psql -q -U app app <<SQL
CREATE TABLE result (id serial PRIMARY KEY, word text, length int, worker text);
SQL
    pg_ctl -D $data -w stop >/dev/null
fi
exec postgres -D $data -c listen_addresses='*'
