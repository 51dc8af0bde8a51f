"""resolv.conf(5), as far as it matters here."""


def parse(text: str) -> tuple[list[str], list[str], list[str]]:
    """(name servers, search domains, options). The last `search` or `domain` counts, options add
    up; `#` and `;` begin comments."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return servers, search, options
