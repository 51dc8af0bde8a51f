// Testcontainers for Node.js: wait strategies, mapped ports, files, networks, an image from a context.
const assert = require("node:assert");
const { GenericContainer, Network, Wait } = require("testcontainers");

async function main() {
  const network = await new Network().start();
  const server = await new GenericContainer("alpine:latest")
    .withCommand(["sh", "-c", "echo starting; httpd -f -p 8080 -h /www"])
    .withCopyContentToContainer([{ content: "copied", target: "/www/index.html" }])
    .withExposedPorts(8080)
    .withNetwork(network)
    .withNetworkAliases("web")
    .withWaitStrategy(Wait.forAll([Wait.forHttp("/", 8080), Wait.forLogMessage("starting")]))
    .start();
  const address = `http://${server.getHost()}:${server.getMappedPort(8080)}/`;
  assert.equal(await (await fetch(address)).text(), "copied");
  const done = await server.exec(["sh", "-c", "echo out; exit 3"]);
  assert.deepEqual([done.exitCode, done.output], [3, "out\n"]);
  const client = await new GenericContainer("alpine:latest")
    .withNetwork(network)
    .withCommand(["wget", "-qO-", "http://web:8080/"])
    .withWaitStrategy(Wait.forOneShotStartup())
    .start();
  await client.stop();
  await server.restart();
  await server.stop();
  await network.stop();

  const healthy = await new GenericContainer("alpine:latest")
    .withCommand(["sh", "-c", "sleep 1; touch /ready; sleep 1000"])
    .withHealthCheck({ test: ["CMD-SHELL", "test -e /ready"], interval: 200, retries: 50 })
    .withWaitStrategy(Wait.forHealthCheck())
    .start();
  await healthy.stop();

  const image = await GenericContainer.fromDockerfile(process.argv[2]).build();
  const built = await image.withWaitStrategy(Wait.forLogMessage("from the context")).start();
  await built.stop();
}

main().then(() => process.exit(0), (error) => (console.error(error), process.exit(1)));
