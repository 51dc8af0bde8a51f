"""Types that tests share."""

from collections.abc import Callable

Names = Callable[[str], str]
"""Makes an object name that carries the test's name: `names("web")`."""

PROMPT = r"root@[0-9a-f]{12}:[^#\n]*# "
"""What bash shows in a container of the labs."""
