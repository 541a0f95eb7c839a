/**
 * Definitions with something hostile in them, under plain QEMU and under the real libvirtd: what may appear in a command
 * line arrives in the guest as it was written, and what is no definition is not taken for one.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { LibvirtConnection } from "../../src/libvirt/connection.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { codeOf } from "../support/failures.ts";
import { makeGuestPart, parseGuestReport } from "../support/guest_image.ts";
import { type LibvirtDaemons, startLibvirtDaemons } from "../support/libvirt_daemon.ts";
import { askQmp } from "../support/qmp.ts";
import { randomWord } from "../support/random_word.ts";

const execute = promisify(execFile);
const images = { kernel: "127.0.0.1:1/hostile/kernel:1", uefi: "127.0.0.1:1/hostile/uefi:1" };
const ids: string[] = [];

let daemons: LibvirtDaemons;
let work: string;
let root: string;

/** A machine of its own, released after the test. */
async function prepare(image: string, ...argv: string[]) {
  const id = `hostile-${randomWord()}`;
  ids.push(id);
  const wishes = ["--memory", "512MiB", "--network", "none", ...argv];
  const { machine } = prepareDocument.parse(
    await bootshimJson(["prepare", image, "--machine", id, ...wishes], { root }),
  );
  if (!machine) throw new Error("prepare gave no machine");
  return machine;
}

const virsh = (...argv: string[]) => execute("virsh", ["-q", "-c", daemons.uri, ...argv]);
const isDefined = async (id: string) =>
  (await virsh("list", "--all", "--name")).stdout.split("\n").includes(id);

async function consoleUntilEnd(id: string, place = { root }): Promise<string> {
  for (let tries = 0; tries < 200; tries++) {
    const { stdout } = await bootshim(["console", id], place);
    if (stdout.includes("BOOTSHIM-GUEST end=ok")) return stdout;
    await wait(500);
  }
  throw new Error("the guest did not report in time");
}

beforeAll(async () => {
  daemons = await startLibvirtDaemons();
  work = await mkdtemp(join(tmpdir(), "bootshim-hostile-"));
  await chmod(work, 0o755);
  root = join(work, "root");
  const build = (tag: string, config: string) =>
    bootshimJson(["build", "--tag", tag, "--config", `arch=amd64,${config}`], { root });
  const kernel = await makeGuestPart("kernel");
  await build(images.kernel, `kernel=${kernel},initramfs=${await makeGuestPart("initramfs")}`);
  await build(images.uefi, `rootfs=${await makeGuestPart("disk-uefi")}`);
});

afterEach(async () => {
  for (const id of ids.splice(0)) {
    await bootshim(["destroy", id], { root });
    await bootshim(["release", id], { root });
  }
});

afterAll(async () => {
  await daemons.stop();
  await rm(work, { recursive: true, force: true });
});

describe("HI02 HI04 any string on a command line", () => {
  /** What means something to a shell, to XML, to QEMU's options, to a terminal's writing; and any other text. */
  const piece = fc.oneof(
    fc.constantFrom(...[
      ",",
      ",,",
      "=",
      "'",
      "<",
      ">",
      "&",
      "&amp;",
      "]]>",
      "<!--",
      "$(id)",
      "${x}",
      "`id`",
      "\\",
    ]),
    fc.constantFrom(...[
      "\\n",
      ";",
      "|",
      "*",
      "?",
      "[a]",
      "{}",
      "%s",
      "#",
      "!",
      "~",
      "ä",
      "漢",
      "🙂",
      "\u00a0",
      "\ufeff",
    ]),
    fc.constantFrom(...[
      "</cmdline><qemu:commandline>",
      "on,id=x",
      "@file",
      "json:{}",
      '"a  b"',
      "é",
      "e\u0301",
    ]),
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 3 }).filter((text) => !/["\p{Cc}\s]/u.test(text)),
  );
  const hostileWord = fc.array(piece, { minLength: 30, maxLength: 60 }).map((pieces) => pieces.join(""))
    // Two of them, and the rest, have room in 2,047 bytes.
    .filter((text) => Buffer.byteLength(text) < 900);

  it("arrives unchanged in a guest under QEMU, and in one under libvirt", async () => {
    const [text = "", value = ""] = fc.sample(hostileWord, 2);
    const line = `console=ttyS0 quiet panic=-1 shim.hostile=${text}`;
    const wishes = ["--cmdline", line, "--append", `shim.value=${value}`];
    const expected = `${line} shim.value=${value}`;
    const network = ["--network", "none", "--memory", "512MiB"];

    const ran = await bootshim(["run", images.kernel, ...wishes, ...network, "--timeout", "90"], { root });
    expect(ran.exitCode, ran.stderr).toBe(0);
    expect(parseGuestReport(ran.stdout).cmdline).toBe(expected);

    const { id } = await prepare(images.kernel, ...wishes);
    await bootshimJson(["start", id], { root });
    expect(parseGuestReport(await consoleUntilEnd(id)).cmdline).toBe(expected);
  });

  it.each(["a\nb", "a\rb", "a\x1bb", "a\tb", "a\x7fb"])(
    "is refused where it cannot arrive: %j",
    async (text) => {
      const { exitCode, stderr } = await bootshim(
        ["run", images.kernel, "--cmdline", `console=ttyS0 ${text}`, "-o", "json"],
        { root },
      );
      expect([exitCode, JSON.parse(stderr).error.code]).toEqual([65, "CMDLINE_INVALID"]);
    },
  );
});

describe("HI03 a root whose name means something to shells, XML, QEMU's options and formats", () => {
  const name = `ro ot,=;'"<&>ä]]>%s$x`;
  const blockNodes = z.array(z.looseObject({
    drv: z.string(),
    file: z.string(),
    ro: z.boolean(),
    backing_file: z.string().optional(),
  }));
  type Prepared = Awaited<ReturnType<typeof prepare>>;

  /** Every file that QEMU reads blocks of, as QEMU tells it and as was asked. */
  function seen(nodes: unknown) {
    return blockNodes.parse(nodes).filter(({ drv }) => drv !== "file")
      .map(({ drv, file, ro, backing_file }) => ({ drv, file, ro, backing: backing_file ?? null }))
      .filter(({ file }) => file.startsWith(work)).sort(byFile);
  }
  function asked({ disks, nvram }: Prepared, iso: string | undefined) {
    return [
      ...disks.map(({ path, format, readOnly, backing }) => ({
        drv: format,
        file: path,
        ro: readOnly,
        backing: backing?.path ?? null,
      })),
      ...disks.flatMap(({ backing }) =>
        backing ? [{ drv: backing.format, file: backing.path, ro: true, backing: null }] : []
      ),
      ...(nvram === null ? [] : [{ drv: "raw", file: nvram, ro: false, backing: null }]),
      ...(iso === undefined ? [] : [{ drv: "raw", file: iso, ro: true, backing: null }]),
    ].sort(byFile);
  }
  const byFile = (one: { file: string }, other: { file: string }) => one.file < other.file ? -1 : 1;

  it.each([
    [
      "a kernel with disks",
      async (word: string) =>
        `kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart("initramfs", { word })},` +
        `rootfs=${await makeGuestPart("rootfs-ext4")},squashfs=${await makeGuestPart("rootfs-squashfs")},` +
        `cmdline=${await textFile("console=ttyS0 quiet")}`,
    ],
    ["a UEFI disk", async (word: string) => `rootfs=${await makeGuestPart("disk-uefi", { word })}`],
  ])(
    "gives %s the very files that were asked for, pasted into a shell and under libvirt",
    async (_what, parts) => {
      const word = randomWord();
      const hostile = { root: join(work, name) };
      const reference = `127.0.0.1:1/hostile/${randomWord()}:1`;
      await bootshimJson(
        ["build", "--tag", reference, "--config", `arch=amd64,${await parts(word)}`],
        hostile,
      );
      const id = `hostile-${randomWord()}`;
      const prepared = prepareDocument.parse(
        await bootshimJson([
          ...["prepare", reference, "--machine", id, "--memory", "512MiB", "--network", "none"],
          ...["--data-disk", "1MiB,data"],
        ], hostile),
      );
      const { machine } = prepared;
      if (!machine) throw new Error("prepare gave no machine");
      const expected = asked(machine, prepared.layers.find(({ role }) => role === "iso")?.path);
      expect(expected.every(({ file }) => file.startsWith(hostile.root))).toBe(true);

      const command = (await bootshim(["qemu", id], hostile)).stdout.trimEnd();
      const qemu = spawn("sh", ["-c", `exec ${command} -S`], { stdio: "ignore" });
      const ended = once(qemu, "exit");
      try {
        const socketPath = join(machine.directory, "qmp.sock");
        for (let tries = 0; tries < 400 && !await stat(socketPath).then(() => true, () => false); tries++) {
          await wait(50);
        }
        expect(seen(await askQmp(socketPath, "query-named-block-nodes"))).toEqual(expected);
      } finally {
        qemu.kill("SIGKILL");
        await ended;
      }

      try {
        await bootshimJson(["start", id], hostile);
        const { stdout } = await virsh("qemu-monitor-command", id, '{"execute":"query-named-block-nodes"}');
        expect(seen(z.looseObject({ return: z.unknown() }).parse(JSON.parse(stdout)).return)).toEqual(
          expected,
        );
        expect(parseGuestReport(await consoleUntilEnd(id, hostile))).toMatchObject({
          word,
          disks: machine.disks.map(({ serial, readOnly }) => ({ serial, readOnly })),
        });
      } finally {
        await bootshim(["destroy", id], hostile);
        await bootshim(["release", id], hostile);
      }
    },
  );

  it("cannot hold an Ignition file, which libvirt could not hand on: refused, and nothing is left", async () => {
    const hostile = { root: join(work, name) };
    const reference = `127.0.0.1:1/hostile/${randomWord()}:1`;
    const kernel = `arch=amd64,kernel=${await makeGuestPart("kernel")}`;
    await bootshimJson(["build", "--tag", reference, "--config", kernel], hostile);
    const ignition = await textFile("{}");
    const id = `hostile-${randomWord()}`;
    const { exitCode, stderr } = await bootshim(
      ["prepare", reference, "--machine", id, "--ignition", ignition, "-o", "json"],
      hostile,
    );
    expect([exitCode, JSON.parse(stderr).error.code]).toEqual([64, "REQUEST_INVALID"]);
    expect(JSON.parse(stderr).error.details.remedy).toContain("--root");
    expect(await bootshimJson(["machines"], hostile)).toEqual([]);
  });

  async function textFile(text: string): Promise<string> {
    const path = join(work, `text-${randomWord()}`);
    await writeFile(path, text);
    return path;
  }
});

describe("HI10 a definition that libvirt's schema does not know", () => {
  const SPOILT: readonly (readonly [string, (xml: string) => string])[] = [
    ["an unknown element", (xml) => xml.replace("<devices>", "<devices><backdoor/>")],
    ["an unknown attribute", (xml) => xml.replace("<vcpu>", '<vcpu hostile="yes">')],
    [
      "an element in the wrong place",
      (xml) => xml.replace("</domain>", "<kernel>/etc/shadow</kernel></domain>"),
    ],
    ["another namespace's element", (xml) => xml.replace("</domain>", '<a:b xmlns:a="urn:x"/></domain>')],
  ];

  it.each(SPOILT)("is refused by define, though libvirt itself would take it: %s", async (_what, spoil) => {
    const machine = await prepare(images.kernel);
    const xml = await readFile(machine.domainXml, "utf8");
    const spoilt = spoil(xml);
    expect(spoilt).not.toBe(xml);
    const file = join(work, `${machine.id}.xml`);
    await writeFile(file, spoilt);
    // So it is the validation that refuses.
    await virsh("define", file);
    await virsh("undefine", machine.id);

    const connection = await LibvirtConnection.open(daemons.uri);
    try {
      expect(await codeOf(connection.defineDomain(spoilt))).toBe("DOMAIN_INVALID");
    } finally {
      await connection.close();
    }
    await chmod(machine.domainXml, 0o600);
    await writeFile(machine.domainXml, spoilt);
    for (const verb of ["define", "start"]) {
      const { exitCode, stderr } = await bootshim([verb, machine.id, "-o", "json"], { root });
      expect([exitCode, JSON.parse(stderr).error.code]).toEqual([70, "DOMAIN_INVALID"]);
      expect(await isDefined(machine.id)).toBe(false);
    }
  });
});

describe("a network in a definition", () => {
  it("may be a bridge by its name: libvirt takes it with validation, and refuses to start without it", async () => {
    const bridge = `br${randomWord().slice(0, 8)}`;
    const { id } = await prepare(images.kernel, "--network", `bridge:${bridge}`);
    expect(await bootshimJson(["define", id], { root })).toMatchObject({ state: "shut off" });
    const { stdout } = await virsh("dumpxml", "--inactive", id);
    expect(stdout).toMatch(
      new RegExp(`<interface type='bridge'>\\s*<mac[^>]*>\\s*<source bridge='${bridge}'/>`),
    );
    const { exitCode, stderr } = await bootshim(["start", id, "-o", "json"], { root });
    expect([exitCode, JSON.parse(stderr).error.code]).toEqual([70, "DOMAIN_FAILED"]);
    expect(stderr).toContain(bridge);
  });
});

describe("a machine with a TPM and a variable store", () => {
  const exists = (path: string) => stat(path).then(() => true, () => false);

  it("leaves neither with libvirt when it is undefined, keeps its own store, and is gone when released", async () => {
    const machine = await prepare(images.uefi, "--tpm");
    const tpmState = `/var/lib/libvirt/swtpm/${machine.uuid}`;
    expect(await bootshimJson(["start", machine.id], { root })).toMatchObject({ state: "running" });
    expect(await exists(tpmState)).toBe(true);
    await bootshimJson(["destroy", machine.id], { root });
    expect(await bootshimJson(["undefine", machine.id], { root })).toMatchObject({ state: "undefined" });
    expect([await isDefined(machine.id), await exists(tpmState)]).toEqual([false, false]);
    expect(await exists(machine.nvram ?? "")).toBe(true);
    // And it starts again, with a new TPM.
    expect(await bootshimJson(["start", machine.id], { root })).toMatchObject({ state: "running" });
    await bootshimJson(["destroy", machine.id], { root });
    await bootshimJson(["release", machine.id], { root });
    expect([await isDefined(machine.id), await exists(tpmState), await exists(machine.directory)]).toEqual(
      [false, false, false],
    );
  });
});

describe("LV16 QEMU's own socket", () => {
  /** The machine's command as it is printed, but paused: nothing of the guest runs. */
  function startPaused([program = "", ...argv]: readonly string[]): ChildProcess {
    return spawn(program, [...argv, "-S"], { stdio: "ignore" });
  }

  async function end(qemu: ChildProcess): Promise<void> {
    const ended = once(qemu, "exit");
    qemu.kill("SIGKILL");
    await ended;
  }

  async function untilAnswered(socketPath: string): Promise<unknown> {
    for (let tries = 0; tries < 400; tries++) {
      try {
        return await askQmp(socketPath, "query-status");
      } catch {
        // Not there yet, or the one of a QEMU that is gone.
        await wait(50);
      }
    }
    throw new Error("QEMU did not answer in time");
  }

  it("is for its owner alone, stands in no way of the next start, and endures garbage", async () => {
    const machine = await prepare(images.kernel);
    const socketPath = join(machine.directory, "qmp.sock");
    const first = startPaused(machine.qemuCommand);
    try {
      await untilAnswered(socketPath);
      const [socket, directory] = [await stat(socketPath), await stat(machine.directory)];
      // Others cannot reach it, and its group could not write to it, which connecting needs.
      expect([socket.mode & 0o022, directory.mode & 0o007]).toEqual([0, 0]);
    } finally {
      await end(first);
    }
    expect((await stat(socketPath)).isSocket()).toBe(true);

    const second = startPaused(machine.qemuCommand);
    try {
      await untilAnswered(socketPath);
      for (
        const garbage of [
          "\0\xff\xfe{]",
          '{"execute":"quit"',
          "[".repeat(100_000),
          `{"execute":"${randomWord()}"}`,
        ]
      ) {
        const stranger = connect(socketPath);
        await once(stranger, "connect");
        stranger.on("error", () => {});
        await new Promise((resolve) =>
          stranger.end(Buffer.from(garbage, "latin1"), () => resolve(undefined))
        );
        stranger.destroy();
        expect(await untilAnswered(socketPath)).toMatchObject({ status: "prelaunch" });
      }
      // Nor does what lies in the folder keep the machine from being used by us, once its QEMU is gone.
      const inUse = await bootshim(["start", machine.id, "-o", "json"], { root });
      expect(JSON.parse(inUse.stderr).error.code).toBe("IN_USE");
    } finally {
      await end(second);
    }
    expect(await bootshimJson(["start", machine.id], { root })).toMatchObject({ state: "running" });
  });
});
