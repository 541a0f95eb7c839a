/** Machines under a libvirtd that is killed, frozen and meddled with: what is theirs stays theirs, and starts once. */
import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdtemp, open, readdir, readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";

import { type PrepareDocument, prepareDocument } from "../../src/agent/prepare_document.ts";
import { sortDevices } from "../../src/agent/ensure_defined.ts";
import { startDomain } from "../../src/agent/start_domain.ts";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { bootshim, bootshimJson, startBootshim } from "../support/bootshim_command.ts";
import { failureOf } from "../support/failures.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { type PrivateLibvirtd, startPrivateLibvirtd } from "../support/private_libvirtd.ts";
import { randomWord } from "../support/random_word.ts";

const IMAGE = "127.0.0.1:1/os/still:1";
const SLOW_MS = 240_000;

let libvirtd: PrivateLibvirtd;
let libvirt: LibvirtConnection;
let work: string;
let root: string;

type Machine = PrepareDocument & { readonly machine: NonNullable<PrepareDocument["machine"]> };

/** A machine whose kernel finds no root and then stands still: it runs until somebody ends it. */
async function prepare(...options: string[]): Promise<Machine> {
  const id = `life-${randomWord()}`;
  const json = await bootshimJson(
    [
      "prepare",
      IMAGE,
      "--machine",
      id,
      "--memory",
      "128MiB",
      "--accel",
      "tcg",
      ...(options.includes("--network") ? [] : ["--network", "none"]),
      ...options,
    ],
    { root },
  );
  const document = prepareDocument.parse(json);
  if (document.machine === null) throw new Error("no machine");
  return { ...document, machine: document.machine };
}

/** A verb at the private daemon. */
function verb(name: string, id: string): Promise<unknown> {
  return bootshimJson([name, id, "--connect", libvirtd.uri], { root });
}

async function refused(name: string, id: string): Promise<{ code: string; message: string }> {
  const ended = await bootshim([name, id, "--connect", libvirtd.uri, "-o", "json"], { root });
  expect(ended.exitCode).not.toBe(0);
  return JSON.parse(ended.stderr).error;
}

async function owned(paths: readonly string[]) {
  return await Promise.all(paths.map(async (path) => {
    const { uid, gid, mode, mtimeMs } = await stat(path);
    const digest = createHash("sha256").update(await readFile(path)).digest("hex");
    return { path, uid, gid, mode, mtimeMs, digest };
  }));
}

/** Every QEMU of a machine on this host, whoever knows of it. */
async function qemuPids(uuid: string): Promise<number[]> {
  const pids: number[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const command = await readFile(`/proc/${entry}/cmdline`, "latin1").catch(() => "");
    if (/^[^\0]*qemu-system/.test(command) && command.includes(uuid)) pids.push(Number(entry));
  }
  return pids;
}

async function onlyQemu(uuid: string): Promise<number> {
  const pids = await qemuPids(uuid);
  expect(pids).toHaveLength(1);
  return pids[0] ?? 0;
}

/** A killed process is there until the kernel has cleared it away. */
async function ended(pid: number): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const state = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
    if (state === undefined || / [ZX] /.test(state)) return;
    await wait(50);
  }
  throw new Error(`process ${pid} did not end`);
}

async function reopen(): Promise<void> {
  await libvirt?.close();
  libvirt = await LibvirtConnection.open(libvirtd.uri, { callTimeoutMs: 120_000 });
}

beforeAll(async () => {
  libvirtd = await startPrivateLibvirtd();
  await reopen();
  work = await mkdtemp(join(tmpdir(), "bootshim-lifecycle-"));
  await chmod(work, 0o755);
  root = join(work, "root");
  await writeFile(join(work, "cmdline"), "console=ttyS0 panic=0\n");
  const parts =
    `arch=amd64,kernel=${await makeGuestPart("kernel")},rootfs=${await makeGuestPart("rootfs-ext4")}` +
    `,cmdline=${join(work, "cmdline")}`;
  await bootshimJson(["build", "--tag", IMAGE, "--config", parts], { root });
}, SLOW_MS);

afterEach(async () => {
  for (const { name, id } of await libvirt.listDomains()) {
    if (id !== null) await libvirt.destroyDomain(name).catch(() => {});
    await libvirt.undefineDomain(name).catch(() => {});
  }
});

afterAll(async () => {
  await libvirt?.close();
  await libvirtd?.stop();
  await rm(work, { recursive: true, force: true });
});

describe("whose domain it is", () => {
  it("LV09 define and start again change nothing; another UUID under the name is a conflict", async () => {
    const { machine } = await prepare();
    await verb("define", machine.id);
    const kept = await libvirt.keptDomainXml(machine.id);
    expect(await verb("define", machine.id)).toMatchObject({ state: "shut off" });
    expect(await libvirt.keptDomainXml(machine.id)).toBe(kept);
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    const pid = await onlyQemu(machine.uuid);
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    expect(await verb("define", machine.id)).toMatchObject({ state: "running" });
    expect(await onlyQemu(machine.uuid)).toBe(pid);
    await verb("destroy", machine.id);
    await verb("undefine", machine.id);

    const stranger = kept.replace(/<uuid>.*<\/uuid>/, `<uuid>${randomUUID()}</uuid>`);
    await libvirt.defineDomain(stranger);
    for (const name of ["define", "start", "destroy", "undefine"]) {
      expect((await refused(name, machine.id)).code).toBe("CONFLICT");
    }
    expect((await libvirt.findDomain(machine.id))?.state).toBe("shut off");
  }, SLOW_MS);

  it(
    "LV09 LV15 a definition that an admin changed is neither overwritten nor started; undefine begins anew",
    async () => {
      const { machine } = await prepare();
      await verb("define", machine.id);
      const kept = await libvirt.keptDomainXml(machine.id);
      await libvirt.defineDomain(kept.replace("<vcpu placement='static'>1<", "<vcpu placement='static'>2<"));
      const changed = await libvirt.keptDomainXml(machine.id);
      expect(changed).not.toBe(kept);
      for (const name of ["define", "start"]) {
        const error = await refused(name, machine.id);
        expect([error.code, error.message]).toEqual([
          "CONFLICT",
          expect.stringContaining("somebody changed"),
        ]);
      }
      expect(await libvirt.keptDomainXml(machine.id)).toBe(changed);
      expect(await qemuPids(machine.uuid)).toEqual([]);
      await verb("undefine", machine.id);
      await verb("define", machine.id);
      expect(await libvirt.keptDomainXml(machine.id)).toBe(kept);
    },
    SLOW_MS,
  );

  // Without a network there is no address; a bridge's is written like a network's.
  it.each(["user", "network"])(
    "LV09 a machine with network %s is defined twice and started twice, and keeps its address",
    async (kind) => {
      const bridge = `shim${randomWord().slice(0, 8)}`;
      const run = promisify(execFile);
      const virsh = (...argv: string[]) => run("virsh", ["-q", "-c", libvirtd.uri, ...argv]);
      const isNetwork = kind === "network";
      if (isNetwork) await run("ip", ["link", "add", bridge, "type", "bridge"]);
      try {
        if (isNetwork) {
          const network = join(work, "network.xml");
          await writeFile(
            network,
            `<network><name>${bridge}</name><forward mode="bridge"/><bridge name="${bridge}"/></network>`,
          );
          await virsh("net-create", network);
        }
        const { machine } = await prepare("--network", isNetwork ? bridge : kind);
        const addresses = async () =>
          [...(await libvirt.keptDomainXml(machine.id)).matchAll(/<mac address='([^']*)'/g)].map(([, one]) =>
            one
          );
        await verb("define", machine.id);
        const before = await addresses();
        expect(before).toHaveLength(1);
        // The address that plain QEMU gives it, too
        for (const address of before) expect(machine.qemuCommand.join(" ")).toContain(`"mac":"${address}"`);
        expect(await verb("define", machine.id)).toMatchObject({ state: "shut off" });
        for (let round = 0; round < 2; round++) {
          expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
          await onlyQemu(machine.uuid);
          expect(await verb("define", machine.id)).toMatchObject({ state: "running" });
          await verb("destroy", machine.id);
        }
        expect(await addresses()).toEqual(before);
      } finally {
        if (isNetwork) await run("ip", ["link", "delete", bridge]);
      }
    },
    SLOW_MS,
  );

  it("LV15 a machine that was prepared without MAC address keeps the one that libvirt gave it", async () => {
    const { machine } = await prepare("--network", "user");
    const now = await readFile(machine.domainXml, "utf8");
    const earlier = now.replace(/ *<mac [^>]*>\n/, "");
    expect(earlier).not.toBe(now);
    // Its bits stay: what is wrong with a machine is looked for in all of them.
    await writeFile(machine.domainXml, earlier);
    await verb("define", machine.id);
    const kept = await libvirt.keptDomainXml(machine.id);
    expect(kept).toMatch(/<mac address='/);
    expect(await verb("define", machine.id)).toMatchObject({ state: "shut off" });
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    await verb("destroy", machine.id);
    // In whatever order libvirt lists its controllers now
    expect(sortDevices(await libvirt.keptDomainXml(machine.id))).toBe(sortDevices(kept));

    // What an admin changed beside it still is a change
    await libvirt.defineDomain(kept.replace("<on_crash>destroy", "<on_crash>restart"));
    const changed = await libvirt.keptDomainXml(machine.id);
    expect((await refused("start", machine.id)).code).toBe("CONFLICT");
    expect(await libvirt.keptDomainXml(machine.id)).toBe(changed);
  }, SLOW_MS);

  it("LV15 undefined by an admin, off or running: the next start makes it ours again, once", async () => {
    const { machine } = await prepare();
    await verb("define", machine.id);
    await libvirt.undefineDomain(machine.id);
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    await libvirt.undefineDomain(machine.id);
    const pid = await onlyQemu(machine.uuid);
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    expect(await onlyQemu(machine.uuid)).toBe(pid);
    expect(await verb("define", machine.id)).toMatchObject({ state: "running" });
    expect(await libvirt.findDomain(machine.id)).toMatchObject({ isPersistent: true });
  }, SLOW_MS);
});

describe("DC20 a caller that is killed at any moment", () => {
  const FRACTIONS = [0.5, 0.9];

  /** Runs a command, or kills it after a part of the time that it takes. */
  async function run(argv: readonly string[], killAfterMs?: number): Promise<number> {
    const startMs = performance.now();
    const child = startBootshim([...argv, "-o", "json"], { root });
    const exit = once(child, "close");
    child.stdout?.resume();
    child.stderr?.resume();
    const timer = killAfterMs === undefined
      ? undefined
      : setTimeout(() => child.kill("SIGKILL"), killAfterMs);
    const [code] = await exit;
    clearTimeout(timer);
    if (killAfterMs === undefined) expect([argv[0], code]).toEqual([argv[0], 0]);
    return performance.now() - startMs;
  }

  it.each(["prepare", "define", "start"] as const)(
    "in %s: again, it is one disk, one domain, one QEMU",
    async (verb) => {
      const group = await qemuGroupId();
      const groupId = group === null ? {} : { groupId: group };
      const commandsOf = (id: string) => ({
        prepare: [
          "prepare",
          IMAGE,
          "--machine",
          id,
          "--memory",
          "128MiB",
          "--accel",
          "tcg",
          "--network",
          "none",
        ],
        define: ["define", id, "--connect", libvirtd.uri],
        start: ["start", id, "--connect", libvirtd.uri],
      });
      const verbs = ["prepare", "define", "start"] as const;
      const tookMs = { prepare: 0, define: 0, start: 0 };
      const measured = commandsOf(`life-${randomWord()}`);
      for (const each of verbs) tookMs[each] = await run(measured[each]);
      for (const fraction of FRACTIONS) {
        const id = `life-${randomWord()}`;
        const commands = commandsOf(id);
        for (const before of verbs.slice(0, verbs.indexOf(verb))) await run(commands[before]);
        await run(commands[verb], tookMs[verb] * fraction);
        expect(machineProblems(root, { ...groupId, isAfterKill: true })).toEqual([]);
        for (const each of verbs) await run(commands[each]);
        expect(machineProblems(root, groupId)).toEqual([]);
        expect((await readdir(join(root, "machines"))).filter((name) => name.includes(id))).toEqual([id]);
        const domains = async () => (await libvirt.listDomains()).filter(({ name }) => name === id);
        // What the killed caller asked for is still being done by libvirt: it is paused until then.
        await expect.poll(domains, { timeout: 30_000 }).toMatchObject([{ name: id, state: "running" }]);
        await onlyQemu((await domains())[0]?.uuid ?? "");
        await libvirt.destroyDomain(id);
      }
    },
    SLOW_MS,
  );
});

describe("a start that fails", () => {
  it("LV10 undoes our define and keeps the disk; an earlier define stays", async () => {
    const { machine } = await prepare("--memory", "15TiB");
    const before = await owned(machine.disks.map((disk) => disk.path));
    const error = await refused("start", machine.id);
    expect(["DOMAIN_FAILED", "DOMAIN_INVALID"]).toContain(error.code);
    expect(error.message).toContain("libvirt reports");
    expect(await libvirt.findDomain(machine.id)).toBe(null);
    expect(await owned(machine.disks.map((disk) => disk.path))).toEqual(before);
    expect(await qemuPids(machine.uuid)).toEqual([]);
  }, SLOW_MS);

  it(
    "LV10 LV11 QEMU that dies at once: a failed start, with its log's last words; our define is undone",
    async () => {
      const { machine } = await prepare();
      const word = randomWord();
      const directory = `${libvirtd.root}/var/log/libvirt/qemu`;
      const starting = failureOf(startDomain({
        id: machine.id,
        xml: await readFile(machine.domainXml, "utf8"),
        connect: async (body) => {
          const connection = await LibvirtConnection.open(libvirtd.uri);
          return await body(connection).finally(() => connection.close());
        },
        find: (connection) => connection.findDomain(machine.id),
        check: () => Promise.resolve(),
      }, { watchMs: 60_000, logDirectory: directory }));
      let isOver = false;
      void starting.catch(() => {}).then(() => isOver = true);
      while ((await libvirt.findDomain(machine.id))?.state !== "running" && !isOver) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const log = await open(`${directory}/${machine.id}.log`, "a");
      await log.write(`qemu-system-x86_64: ${word}\n`);
      await log.close();
      process.kill(await onlyQemu(machine.uuid), "SIGKILL");
      const error = await starting;
      expect([error.code, error.details["reason"]]).toEqual(["DOMAIN_FAILED", "crashed"]);
      expect(error.message).toContain("ended at once");
      expect(error.details["log"]).toContain(`qemu-system-x86_64: ${word}`);
      expect(error.details["log"]).not.toContain("-machine");
      expect(await libvirt.findDomain(machine.id)).toBe(null);
    },
    SLOW_MS,
  );
});

describe("what libvirt touches", () => {
  it("LV13 a guest's header in its raw disk is opened by nobody", async () => {
    const { machine } = await prepare("--disk-format", "raw", "--clone", "copy");
    const xml = await readFile(machine.domainXml, "utf8");
    const disks = [...xml.matchAll(/<disk [^]*?<\/disk>/g)].map(([disk]) => disk);
    expect(disks.length).toBeGreaterThan(0);
    // Every chain is said to its end: libvirt has nothing to find out
    for (const disk of disks) expect(disk).toMatch(/<driver [^>]*type="(raw|qcow2)"[^]*<backingStore\/>/);

    const canary = join(work, `canary-${randomWord()}`);
    await writeFile(canary, "sing");
    const disk = machine.disks[0];
    if (disk === undefined || disk.format !== "raw") throw new Error("a raw disk was asked for");
    // What a guest could write: a whole qcow2 that names the canary as its backing file
    const fake = join(work, "fake.qcow2");
    await promisify(execFile)("qemu-img", [
      "create",
      "-q",
      "-f",
      "qcow2",
      "-F",
      "raw",
      "-b",
      canary,
      fake,
      "1M",
    ]);
    const file = await open(disk.path, "r+");
    await file.write(await readFile(fake), 0, undefined, 0);
    await file.close();
    expect((await promisify(execFile)("qemu-img", ["info", "-U", disk.path])).stdout).toContain(canary);

    await libvirt.close();
    await libvirtd.kill("SIGTERM");
    const trace = join(work, "trace");
    // -D: libvirtd keeps the process id that was started, and the tracer goes with it
    await libvirtd.start([
      "strace",
      "--seccomp-bpf",
      "-D",
      "-f",
      "-qq",
      "-s",
      "400",
      "-e",
      "trace=open,openat,openat2,stat,newfstatat",
      "-o",
      trace,
    ]);
    await reopen();
    try {
      expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
      await verb("destroy", machine.id);
      const seen = await readFile(trace, "utf8");
      expect(seen).toContain(disk.path);
      expect(seen).not.toContain(canary);
    } finally {
      await libvirt.close();
      await libvirtd.kill("SIGTERM");
      await libvirtd.start();
      await reopen();
    }
  }, SLOW_MS);

  it(
    "LV14 two machines on one base: start, stop, crash, daemon killed: owner, mode, bytes unchanged, base unwritable",
    async () => {
      const [one, two] = [await prepare("--clone", "overlay"), await prepare("--clone", "overlay")];
      const paths = one.layers.map((layer) => layer.path);
      const before = await owned(paths);
      const steps: [string, () => Promise<unknown>][] = [
        ["both started", () => Promise.all([verb("start", one.machine.id), verb("start", two.machine.id)])],
        ["a QEMU killed", async () => process.kill(await onlyQemu(two.machine.uuid), "SIGKILL")],
        ["libvirtd killed", async () => {
          await libvirtd.kill("SIGKILL");
          await libvirtd.start();
          await reopen();
        }],
        ["one destroyed", () => verb("destroy", one.machine.id)],
        ["started again", () => verb("start", two.machine.id)],
        ["stopped", () => verb("destroy", two.machine.id)],
      ];
      for (const [step, act] of steps) {
        await act();
        expect([step, await owned(paths)]).toEqual([step, before]);
        for (const pid of await qemuPids(one.machine.uuid)) {
          await expectReadOnly(pid, paths);
        }
      }
    },
    SLOW_MS,
  );
});

/** What a QEMU has open of the base is open for reading, and its user may not open it for writing. */
async function expectReadOnly(pid: number, paths: readonly string[]): Promise<void> {
  let opened = 0;
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
    if (!paths.includes(target)) continue;
    opened++;
    const flags = /^flags:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1];
    expect([target, Number.parseInt(flags ?? "1", 8) & 3]).toEqual([target, 0]);
  }
  expect(opened).toBeGreaterThan(0);
  const { uid } = await stat(`/proc/${pid}`);
  const groups = /^Groups:\s+(.*)$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]?.trim() ?? "";
  const gid = /^Gid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
  for (const path of paths) {
    const who = ["--reuid", String(uid), "--regid", gid];
    const also = groups === "" ? ["--clear-groups"] : ["--groups", groups.split(/\s+/).join(",")];
    await promisify(execFile)("setpriv", [...who, ...also, "test", "!", "-w", path]);
  }
}

describe("a guest's QEMU", () => {
  it(
    "LV17 runs as another user, without capabilities or a way to get any, under a seccomp filter",
    async () => {
      const { machine } = await prepare();
      await verb("start", machine.id);
      const status = await readFile(`/proc/${await onlyQemu(machine.uuid)}/status`, "utf8");
      const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1];
      expect({
        seccomp: field("Seccomp"),
        noNewPrivileges: field("NoNewPrivs"),
        capabilities: field("CapEff"),
      })
        .toEqual({ seccomp: "2", noNewPrivileges: "1", capabilities: "0000000000000000" });
      expect(field("Uid")).not.toBe("0");
    },
    SLOW_MS,
  );
});

describe("what outlives the daemon", () => {
  it("LV19 after a reboot of the host all is off, nothing is fetched again, and machines start", async () => {
    const { machine } = await prepare();
    await verb("start", machine.id);
    const pid = await onlyQemu(machine.uuid);
    await libvirtd.kill("SIGKILL");
    process.kill(pid, "SIGKILL");
    await ended(pid);
    await libvirtd.start();
    await reopen();
    expect(await libvirt.findDomain(machine.id)).toMatchObject({ state: "shut off", id: null });
    const again = await bootshimJson(
      [
        "prepare",
        IMAGE,
        "--machine",
        machine.id,
        "--memory",
        "128MiB",
        "--accel",
        "tcg",
        "--network",
        "none",
      ],
      { root },
    );
    expect(again).toMatchObject({ cached: true, transferredBytes: 0, machine: { uuid: machine.uuid } });
    expect(await verb("start", machine.id)).toMatchObject({ state: "running" });
    await onlyQemu(machine.uuid);
  }, SLOW_MS);

  it("LV04 one Ctrl-C ends a verb that hangs on a frozen daemon", async () => {
    const { machine } = await prepare();
    await verb("define", machine.id);
    libvirtd.freeze();
    const connections = async () =>
      (await readFile("/proc/net/unix", "utf8")).split("\n").filter((line) => line.endsWith(libvirtd.socket))
        .length;
    const before = await connections();
    try {
      const verb = ["start", machine.id, "--connect", libvirtd.uri, "-o", "json"];
      const child = startBootshim(verb, { root });
      let stderr = "";
      child.stderr?.setEncoding("utf8").on("data", (text: string) => stderr += text);
      const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
      // It connects, and nobody answers
      while (await connections() <= before) await new Promise((resolve) => setTimeout(resolve, 20));
      process.kill(child.pid ?? 0, "SIGINT");
      expect(await ended).toBe(130);
      expect(JSON.parse(stderr).error.code).toBe("CANCELLED");
    } finally {
      libvirtd.thaw();
    }
    expect(await qemuPids(machine.uuid)).toEqual([]);
  }, SLOW_MS);
});
