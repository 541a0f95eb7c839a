/** The real command on a real terminal: what is drawn there, and what is left of it when the user has had enough. */
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { bootshimJson } from "../support/bootshim_command.ts";
import { bzImage } from "../support/disk_bytes.ts";
import {
  type FaultServer,
  respond,
  type Script,
  startFaultServer,
  type Step,
} from "../support/fault_server.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, osIndex } from "../support/os_image.ts";
import { openTerminal } from "../support/pseudo_terminal.ts";

const BOOTSHIM = fileURLToPath(new URL("../../scripts/bootshim", import.meta.url));
const CTRL_C = "\x03";
/** The terminal shows the key itself, too, wherever that falls. */
const CANCELLED = /\n(\^C)*bootshim: CANCELLED: [^\n]*\n(\^C)*$/;
const CURSOR_HIDDEN = "\x1b[?25l";
const CURSOR_SHOWN = "\x1b[?25h";
const COLOUR = /\p{Cc}\[[0-9;]*m/u;
/** A pause, at the utmost, in which a user does not wonder. */
const SECONDS_MS = 5000;

let work: string;
let root: string;

beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-terminal-test-"));
  root = join(work, "root");
});
afterEach(async () => await rm(work, { recursive: true, force: true }));

function openCommand(command: string, environment: Readonly<Record<string, string>> = {}) {
  return openTerminal(command.replaceAll("bootshim", BOOTSHIM), {
    BOOTSHIM_ROOT: root,
    BOOTSHIM_CONFIG: "/dev/null",
    ...environment,
  });
}

/** Programs that are told of a file in our folder. */
function programsAtWork(): string[] {
  return readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).flatMap((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      return words.includes(work) ? [words] : [];
    } catch {
      // It ended while we were looking.
      return [];
    }
  });
}

/** @param interrupted transfers that the next try continues */
async function expectNothingLeft({ interrupted = 0 } = {}): Promise<void> {
  // A command whose terminal is gone takes its time to clean up, and so does the kernel to end a QEMU without owner.
  await vi.waitFor(() => {
    expect(programsAtWork()).toEqual([]);
    expect(readdirSync(join(root, "machines"))).toEqual([]);
  }, { timeout: SECONDS_MS, interval: 50 });
  const groupId = await qemuGroupId();
  const options = { partials: interrupted, ...(groupId === null ? {} : { groupId }) };
  expect(layoutProblems(root, options)).toEqual([]);
}

/** A registry that gives the image's kernel step by step. */
async function serveSlowly(
  image: OsImage,
  kernelSteps: (kernel: Uint8Array) => readonly Step[],
): Promise<FaultServer> {
  const index = osIndex([image]);
  const script: Script = ({ method, path }) => {
    const document =
      [index, image.manifest].find(({ descriptor }) => path.endsWith(`/${descriptor.digest}`)) ??
        (path.endsWith("/manifests/1") ? index : undefined);
    if (document) {
      const headers = { "Content-Type": document.descriptor.mediaType };
      return respond(200, { headers, body: method === "HEAD" ? "" : document.bytes });
    }
    if (path.endsWith(image.config.descriptor.digest)) return respond(200, { body: image.config.bytes });
    const kernel = image.layers.kernel?.bytes ?? new Uint8Array();
    const [head] = respond(200, { headers: { "Content-Length": String(kernel.length) } });
    return head ? [head, ...kernelSteps(kernel)] : [];
  };
  return await startFaultServer(script);
}

const PIECES = 20;
const kernel = new Uint8Array([...bzImage(), ...new Uint8Array(4 * 2 ** 20)]);
const pieces = (bytes: Uint8Array) =>
  Array.from({ length: PIECES }, (_, i) => {
    const size = Math.ceil(bytes.length / PIECES);
    return bytes.subarray(i * size, (i + 1) * size);
  });

describe("inspect on a terminal", () => {
  it("marks the choice, folds lines, and does without looks under NO_COLOR and in a pipe", async () => {
    const name = "127.0.0.1:1/os/picture:1";
    await bootshimJson([
      "build",
      "--tag",
      name,
      "--config",
      `arch=amd64,kernel=${await makeGuestPart("kernel")}`,
    ], {
      root,
    });
    const show = async (command: string, environment = {}) => {
      const { exitCode, output } = await (await openCommand(`stty cols 60; ${command}`, environment)).ended();
      expect(exitCode).toBe(0);
      return output.replaceAll("\r", "");
    };
    const inspect = `bootshim inspect ${name} --pull never`;
    const looks = await show(inspect);
    expect(looks).toMatch(/^\|-- \p{Cc}\[1mkernel {2}chosen {2}the kernel/mu);
    const plain = await show(inspect, { NO_COLOR: "1" });
    expect(plain).not.toMatch(COLOUR);
    expect(plain).toBe(looks.replaceAll(new RegExp(COLOUR, "gu"), ""));
    expect(plain).toMatch(/^`-- amd64 {2}linux {2}virtualization\n {4}\| {3}sha256:\w{64}\n/m);
    expect(await show(`${inspect} | cat`)).toMatch(
      /^`-- amd64 {2}linux {2}virtualization {2}sha256:\w{64} {2}<- chosen\n/m,
    );
  });
});

describe("a slow transfer on a terminal", () => {
  const inPieces = (bytes: Uint8Array): Step[] =>
    pieces(bytes).flatMap((piece): Step[] => [{ send: piece }, { waitMs: 100 }]);

  it.each([{}, { NO_COLOR: "1" }])(
    "draws bars without colours, and gives the terminal back: %j",
    async (environment) => {
      await using server = await serveSlowly(osImage({ kernel }), inPieces);
      const terminal = await openCommand(`bootshim pull ${server.host}/os/slow:1`, environment);
      const { exitCode, output, settings } = await terminal.ended();
      expect(exitCode).toBe(0);
      const percentages = [...output.matchAll(/kernel {4}\[[= ]{24}\] (\d+)%/g)].map((match) =>
        Number(match[1])
      );
      expect(new Set(percentages).size).toBeGreaterThan(5);
      expect(percentages).toEqual(percentages.toSorted((a, b) => a - b));
      expect(percentages.at(-1)).toBe(100);
      expect(output).not.toMatch(COLOUR);
      expect(output.lastIndexOf(CURSOR_SHOWN)).toBeGreaterThan(output.lastIndexOf(CURSOR_HIDDEN));
      expect(output.lastIndexOf("\x1b[?7h")).toBeGreaterThan(output.lastIndexOf("\x1b[?7l"));
      // The result comes after the bars, on a line of its own.
      expect(output).toMatch(new RegExp(`\\n${server.host}/os/slow:1 sha256:\\w{64} \\d+ bytes\\r\\n$`));
      expect(settings.after).toBe(settings.before);
      await expectNothingLeft();
    },
  );

  it.each(["--no-progress", "--quiet"])("%s leaves the terminal to plain text", async (flag) => {
    await using server = await serveSlowly(osImage({ kernel }), (bytes) => [{ send: bytes }]);
    const { exitCode, output } = await (await openCommand(`bootshim pull ${server.host}/os/slow:1 ${flag}`))
      .ended();
    expect(exitCode).toBe(0);
    expect(output).not.toContain("\x1b");
    expect(output.split("\r\n").length - 1).toBe(flag === "--quiet" ? 1 : 2);
  });

  it.each([1, 3])(
    "ends at Ctrl-C, pressed %i times, within seconds, and leaves nothing behind",
    async (times) => {
      // Half of the layer, then silence.
      await using server = await serveSlowly(osImage({ kernel }), (bytes) => [
        ...pieces(bytes).slice(0, PIECES / 2).map((send) => ({ send })),
        { hang: true },
      ]);
      const terminal = await openCommand(`bootshim pull ${server.host}/os/slow:1`);
      await terminal.shows(/ 50% /);
      const startMs = performance.now();
      for (let pressed = 0; pressed < times; pressed++) terminal.type(CTRL_C);
      const { exitCode, output, settings } = await terminal.ended();
      expect(performance.now() - startMs).toBeLessThan(SECONDS_MS);
      expect(exitCode).toBe(130);
      expect(output).toMatch(CANCELLED);
      expect(output.lastIndexOf(CURSOR_SHOWN)).toBeGreaterThan(output.lastIndexOf(CURSOR_HIDDEN));
      expect(settings.after).toBe(settings.before);
      await expectNothingLeft({ interrupted: 1 });
    },
  );
});

describe("run on a terminal", () => {
  /** A guest that says a few hundred lines, then stays for ever: its kernel finds no root file system. */
  async function buildStayingGuest(): Promise<string> {
    const name = "127.0.0.1:1/os/stays:1";
    await bootshimJson([
      "build",
      "--tag",
      name,
      "--config",
      `arch=amd64,kernel=${await makeGuestPart("kernel")}`,
    ], {
      root,
    });
    return `bootshim run ${name} --timeout 50 --memory 256MiB --accel tcg --network none --cmdline console=ttyS0`;
  }

  it("ends the guest at Ctrl-C within seconds, and leaves no QEMU, no machine, and the terminal as it was", async () => {
    const terminal = await openCommand(await buildStayingGuest());
    await terminal.shows(/end Kernel panic[^\n]*\n/);
    expect(programsAtWork().filter((words) => words.includes("qemu-system-x86_64"))).toHaveLength(1);
    const startMs = performance.now();
    terminal.type(CTRL_C);
    const { exitCode, output, settings } = await terminal.ended();
    expect(performance.now() - startMs).toBeLessThan(SECONDS_MS);
    expect(exitCode).toBe(130);
    expect(output).toMatch(CANCELLED);
    expect(settings.after).toBe(settings.before);
    await expectNothingLeft();
  });

  it("ends quietly when the reader of its output has gone, and leaves no QEMU and no machine", async () => {
    const command = await buildStayingGuest();
    const terminal = await openCommand(`${command} | head -n 1; exit \${PIPESTATUS[0]}`);
    const { exitCode, output, settings } = await terminal.ended();
    // As a filter does that SIGPIPE ends.
    expect(exitCode).toBe(141);
    expect(output.split("\n").filter((line) => line.includes("bootshim:"))).toEqual([]);
    expect(settings.after).toBe(settings.before);
    await expectNothingLeft();
  });

  it("ends the guest when the terminal is closed, and leaves no QEMU and no machine", async () => {
    const terminal = await openCommand(await buildStayingGuest());
    await terminal.shows(/end Kernel panic[^\n]*\n/);
    await terminal.close();
    await expectNothingLeft();
  });
});
