"""The table of commands: what exists, and which module holds it.

A row is `(path, short form, aliases, module, summary)`. The module is imported only when its
command is used; its `COMMANDS` maps the row's path to a `grammar.Command`. An empty module name
is a command of Docker's that teu does not have yet: refused by name.
"""

from __future__ import annotations

Row = tuple[str, str, tuple[str, ...], str, str]

# fmt: off
TABLE: tuple[Row, ...] = (
    ("container attach", "attach", (), "attach", "Connect your terminal to a running container"),
    ("container commit", "commit", (), "changes", "Make an image from a container's changes"),
    ("container cp", "cp", (), "cp", "Copy files between a container and this machine"),
    ("container create", "create", (), "run", "Make a container without starting it"),
    ("container diff", "diff", (), "changes", "List what changed in a container's file system"),
    ("container exec", "exec", (), "exec", "Run a command in a running container"),
    ("container export", "export", (), "changes", "Write a container's file system as a tar"),
    ("container inspect", "", (), "inspect", "Show everything known about containers"),
    ("container kill", "kill", (), "lifecycle", "Send a signal (default KILL) to containers"),
    ("container logs", "logs", (), "logs", "Print a container's logs"),
    ("container ls", "ps", ("container list", "container ps"), "ps", "List containers"),
    ("container pause", "pause", (), "lifecycle", "Freeze all processes of containers"),
    ("container port", "port", (), "port", "List a container's published ports"),
    ("container prune", "", (), "prune", "Remove all stopped containers"),
    ("container rename", "rename", (), "lifecycle", "Give a container another name"),
    ("container restart", "restart", (), "lifecycle", "Stop and start containers"),
    ("container rm", "rm", ("container remove",), "lifecycle", "Remove containers"),
    ("container run", "run", (), "run", "Make a container from an image and start it"),
    ("container start", "start", (), "start", "Start stopped containers"),
    ("container stats", "stats", (), "stats", "Show live resource usage of containers"),
    ("container stop", "stop", (), "lifecycle", "Stop containers: signal, then KILL after a time"),
    ("container top", "top", (), "top", "List the processes of a container"),
    ("container unpause", "unpause", (), "lifecycle", "Let frozen containers go on"),
    ("container update", "update", (), "changes", "Change limits of containers"),
    ("container wait", "wait", (), "lifecycle", "Wait until containers stop, print exit codes"),
    ("image bootstrap", "", (), "bootstrap", "Make a base image from the host's package mirror"),
    ("image build", "build", (), "build", "Build an image from a Dockerfile"),
    ("image history", "history", (), "history", "Show how an image was made"),
    ("image import", "import", (), "archive", "Make an image from a tar archive of a file system"),
    ("image inspect", "", (), "inspect", "Show everything known about images"),
    ("image load", "load", (), "archive", "Load images from an archive"),
    ("image ls", "images", ("image list",), "images", "List images"),
    ("image prune", "", (), "prune", "Remove unused images"),
    ("image pull", "pull", (), "pull", "Get an image from a registry"),
    ("image push", "push", (), "pull", "Send an image to a registry"),
    ("image rm", "rmi", ("image remove",), "image", "Remove images"),
    ("image save", "save", (), "archive", "Write images to an archive (default stdout)"),
    ("image tag", "tag", (), "image", "Give an image another name"),
    ("image tags", "", (), "tags", "List the tags that a repository has in its registry"),
    ("manifest annotate", "", (), "manifest", "Say for which platform a manifest of a list is"),
    ("manifest create", "", (), "manifest", "Make a list of manifests, to annotate and push"),
    ("manifest inspect", "", (), "manifest", "Show a manifest, or a list of them"),
    ("manifest push", "", (), "manifest", "Send a list of manifests to a registry"),
    ("manifest rm", "", (), "manifest", "Forget lists of manifests"),
    ("network connect", "", (), "network", "Connect a container to a network"),
    ("network create", "", (), "network", "Create a network"),
    ("network disconnect", "", (), "network", "Disconnect a container from a network"),
    ("network inspect", "", (), "inspect", "Show everything known about networks"),
    ("network ls", "", ("network list",), "network", "List networks"),
    ("network prune", "", (), "prune", "Remove unused networks"),
    ("network rm", "", ("network remove",), "network", "Remove networks"),
    ("network why", "", (), "network", "Tell whether a container reaches another, and why not"),
    ("volume clone", "", (), "volume_work", "Make a volume with the content of another one"),
    ("volume cp", "", (), "volume_work", "Copy files between a volume and this machine"),
    ("volume create", "", (), "volume", "Create a volume"),
    ("volume du", "", (), "volume_work", "Show the space that volumes take, and who uses them"),
    ("volume export", "", (), "volume_work", "Write a volume's content as a tar"),
    ("volume import", "", (), "volume_work", "Read a volume's content from a tar"),
    ("volume inspect", "", (), "inspect", "Show everything known about volumes"),
    ("volume ls", "", ("volume list",), "volume", "List volumes"),
    ("volume prune", "", (), "prune", "Remove unused volumes"),
    ("volume rename", "", (), "volume_work", "Give a volume another name"),
    ("volume rm", "", ("volume remove",), "volume", "Remove volumes"),
    ("volume snapshot", "", (), "volume_work", "Keep a volume's content as it is now"),
    ("volume update", "", (), "", "Change a cluster volume"),
    ("system check", "", (), "check", "Find missing or damaged content, and repair it"),
    ("system df", "", (), "system", "Show disk usage"),
    ("system dial-stdio", "", (), "system", "Connect stdin and stdout to the daemon's socket"),
    ("system events", "events", (), "events", "Print what happens in the daemon, as it happens"),
    ("system info", "info", (), "system", "Show facts about the daemon and its machine"),
    ("system prune", "", (), "prune", "Remove unused data"),
    ("context create", "", (), "context", "Create a context"),
    ("context export", "", (), "context", "Write a context to an archive"),
    ("context import", "", (), "context", "Create a context from an archive"),
    ("context inspect", "", (), "context", "Show everything known about contexts"),
    ("context ls", "", ("context list",), "context", "List contexts"),
    ("context rm", "", ("context remove",), "context", "Remove contexts"),
    ("context show", "", (), "context", "Print the current context's name"),
    ("context update", "", (), "context", "Change a context"),
    ("context use", "", (), "context", "Choose the current context"),
    ("builder build", "", (), "build", "Build an image from a Dockerfile"),
    ("builder prune", "", (), "prune", "Remove the build cache"),
    ("builder shell", "", (), "buildshell", "Enter a build step that failed"),
    ("compose attach", "", (), "compose", "Connect your terminal to a service's container"),
    ("compose build", "", (), "compose", "Build or rebuild services"),
    ("compose config", "", (), "compose", "Check the files and print them resolved"),
    ("compose cp", "", (), "compose", "Copy files between a service's container and here"),
    ("compose create", "", (), "compose", "Make the containers of a project"),
    ("compose down", "", (), "compose", "Stop and remove containers and networks"),
    ("compose events", "", (), "compose", "Print what happens to the project's containers"),
    ("compose exec", "", (), "compose", "Run a command in a running container"),
    ("compose images", "", (), "compose", "List the images of the containers"),
    ("compose kill", "", (), "compose", "Send a signal to containers"),
    ("compose logs", "", (), "compose", "Print the output of containers"),
    ("compose ls", "", (), "compose", "List projects"),
    ("compose pause", "", (), "compose", "Freeze services"),
    ("compose port", "", (), "compose", "Print where a port is published"),
    ("compose ps", "", (), "compose", "List containers"),
    ("compose pull", "", (), "compose", "Get the images of services"),
    ("compose push", "", (), "compose", "Send the images of services to their registries"),
    ("compose restart", "", (), "compose", "Stop and start containers"),
    ("compose rm", "", (), "compose", "Remove stopped containers"),
    ("compose run", "", (), "compose", "Run a command once in a new container of a service"),
    ("compose scale", "", (), "compose", "Change how many containers services have"),
    ("compose start", "", (), "compose", "Start stopped containers"),
    ("compose stats", "", (), "compose", "Show the resource usage of containers"),
    ("compose stop", "", (), "compose", "Stop containers"),
    ("compose top", "", (), "compose", "List the processes of containers"),
    ("compose unpause", "", (), "compose", "Let frozen services go on"),
    ("compose up", "", (), "compose", "Make and start everything that the files say"),
    ("compose version", "", (), "compose", "Show the version"),
    ("compose wait", "", (), "compose", "Wait until services stop, print exit codes"),
    ("registry serve", "", (), "registry", "Run a registry server"),
    ("registry passwd", "", (), "registry", "Add a user to a registry's password file"),
    ("inspect", "", (), "inspect", "Show everything known about objects of any type"),
    ("login", "", (), "login", "Log in to a registry"),
    ("logout", "", (), "login", "Log out of a registry"),
    ("search", "", (), "search", "Search a registry for images"),
    ("version", "", (), "version", "Show the versions of client and daemon"),
    ("completion", "", (), "completion", "Print the shell completion script"),
    ("__complete", "", (), "completion", ""),
)

GROUPS: tuple[tuple[str, str], ...] = (
    ("builder", "Manage builds"),
    ("checkpoint", "Manage checkpoints"),
    ("compose", "Run applications of several services"),
    ("config", "Manage Swarm configs"),
    ("container", "Manage containers"),
    ("context", "Manage contexts"),
    ("image", "Manage images"),
    ("manifest", "Manage image manifests and manifest lists"),
    ("network", "Manage networks"),
    ("node", "Manage Swarm nodes"),
    ("plugin", "Manage plugins"),
    ("registry", "Run a registry"),
    ("secret", "Manage Swarm secrets"),
    ("service", "Manage Swarm services"),
    ("stack", "Manage Swarm stacks"),
    ("swarm", "Manage Swarm"),
    ("system", "Manage the engine"),
    ("trust", "Manage trust on images"),
    ("volume", "Manage volumes"),
)
# fmt: on
# Groups whose own flags may stand before the command, and the module that has GROUP_FLAGS.
GROUPS_WITH_FLAGS = {"compose": "compose"}


def find(words: list[str]) -> tuple[Row | None, str, list[str]]:
    """Resolves the command that `words` start with.

    Returns: its row (None for a group or an unknown command), its path as Docker prints it
    (`ps`, `container ls`; a group's name; "" when unknown), and the words behind the path.
    Flags may stand between a group and its command (`container --help ls`), as in Docker.
    """
    first = words[0]
    for row in TABLE:
        if first == row[1] or first == row[0]:
            return row, first, words[1:]
    if not any(first == name for name, _ in GROUPS):
        return None, "", words
    for position, word in enumerate(words[1:], 1):
        if word.startswith("-"):
            continue
        typed = f"{first} {word}"
        for row in TABLE:
            if typed == row[0] or typed in row[2]:
                return row, row[0], words[1:position] + words[position + 1 :]
        break
    return None, first, words[1:]
