"""What the tests drive engines with: daemons, clients, terminals, images and leak checks."""
