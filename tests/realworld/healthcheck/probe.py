import os

assert os.getcwd() == "/srv"
