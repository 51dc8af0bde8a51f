"""Counts the letters of queued words and writes them to the database."""

import os
import socket

import psycopg2
import redis

queue = redis.Redis(os.environ["QUEUE"])
while True:
    _, word = queue.blpop("words")
    with psycopg2.connect(os.environ["DATABASE"]) as database, database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO result (word, length, worker) VALUES (%s, %s, %s)",
            (word.decode(), len(word), socket.gethostname()),
        )
    print("counted", word.decode(), flush=True)
