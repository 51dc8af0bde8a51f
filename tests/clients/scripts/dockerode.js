// dockerode, the library below most of Node's Docker tools: streams, progress, exec, archives, build.
const assert = require("node:assert");
const { PassThrough } = require("node:stream");
const Docker = require("dockerode");

const docker = new Docker();

const followed = (stream) =>
  new Promise((done, failed) =>
    docker.modem.followProgress(stream, (error, rows) => (error ? failed(error) : done(rows)))
  );

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function demuxed(stream) {
  const out = new PassThrough();
  const err = new PassThrough();
  docker.modem.demuxStream(stream, out, err);
  stream.on("end", () => (out.end(), err.end()));
  return Promise.all([text(out), text(err)]);
}

async function main() {
  const rows = await followed(await docker.pull("alpine:latest"));
  assert(rows.some((row) => /Status: /.test(row.status)));

  const out = new PassThrough();
  const [result, ran] = await docker.run("alpine", ["sh", "-c", "echo run; exit 3"], out);
  assert.equal(result.StatusCode, 3);
  await ran.remove();

  const container = await docker.createContainer({
    Image: "alpine",
    Cmd: ["sh", "-c", "echo begin; cat; echo end >&2; sleep 1000"],
    OpenStdin: true,
    StdinOnce: true,
    Labels: { scenario: "dockerode" },
    HostConfig: { PortBindings: { "80/tcp": [{ HostPort: "" }] } },
    ExposedPorts: { "80/tcp": {} },
  });
  const attached = await container.attach({
    stream: true, stdin: true, stdout: true, stderr: true, hijack: true,
  });
  const seen = new PassThrough();
  docker.modem.demuxStream(attached, seen, seen);
  await container.start();
  attached.write("typed\n");
  attached.end();
  let all = "";
  for await (const chunk of seen) {
    all += chunk;
    if (all.includes("end")) break;
  }
  assert.equal(all, "begin\ntyped\nend\n");

  const exec = await container.exec({
    Cmd: ["sh", "-c", "cat; echo err >&2; exit 4"],
    AttachStdin: true, AttachStdout: true, AttachStderr: true,
  });
  const stream = await exec.start({ hijack: true, stdin: true });
  stream.end("fed");
  assert.deepEqual(await demuxed(stream), ["fed", "err\n"]);
  assert.equal((await exec.inspect()).ExitCode, 4);

  const terminal = await container.exec({
    Cmd: ["sh", "-c", "read x; stty size"], Tty: true, AttachStdin: true, AttachStdout: true,
  });
  const tty = await terminal.start({ hijack: true, stdin: true, Tty: true });
  await terminal.resize({ h: 33, w: 77 });
  tty.write("\n");
  assert.match(await text(tty), /33 77/);

  const listed = await docker.listContainers({
    all: true, size: true, filters: { label: ["scenario=dockerode"], status: ["running"] },
  });
  assert.equal(listed.length, 1);
  assert.equal(typeof listed[0].SizeRootFs, "number");
  const inspected = await container.inspect({ size: true });
  assert(inspected.NetworkSettings.Ports["80/tcp"][0].HostPort > 0);
  const stats = await container.stats({ stream: false });
  assert(stats.memory_stats.usage > 0);
  const logs = await container.logs({ stdout: true, stderr: true, tail: 1, timestamps: true });
  assert.match(logs.toString(), /end\n$/);

  const events = await docker.getEvents({ filters: { container: [container.id] } });
  const told = [];
  const gone = (async () => {
    for await (const chunk of events) {
      told.push(...chunk.toString().trim().split("\n").map((line) => JSON.parse(line).Action));
      if (told.includes("destroy")) return;
    }
  })();
  await container.stop({ t: 0 });
  assert.equal((await container.wait()).StatusCode, 137);
  await container.remove({ v: true });
  await gone;
  assert.deepEqual(told.filter((one) => one !== "kill"), ["die", "stop", "destroy"]);

  const built = await followed(
    await docker.buildImage({ context: process.argv[2], src: ["Dockerfile", "file"] }, { t: "ode:1" })
  );
  assert(built.some((row) => row.aux && row.aux.ID), JSON.stringify(built));
  await docker.getImage("ode:1").remove({ force: true });
  await assert.rejects(docker.getContainer("nosuch").inspect(), { statusCode: 404 });
}

main().then(() => process.exit(0), (error) => (console.error(error), process.exit(1)));
