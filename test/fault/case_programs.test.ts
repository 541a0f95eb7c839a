/** Which programs a pull and what follows it start, and with which words: as the kernel saw them, not as we meant them. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { qemuGroupId } from "../../src/host/qemu_group.ts";
import { startFaultServer } from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { machineProblems } from "../support/machine_checker.ts";
import { randomRootfs } from "../support/machine_wish.ts";
import { osImage, randomKernel } from "../support/os_image.ts";
import { serveImage } from "../support/pull_kit.ts";
import { qcow2File } from "../support/qcow2_bytes.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const COMMAND = fileURLToPath(new URL("../../scripts/bootshim", import.meta.url));
const WORD = '"(?:[^"\\\\]|\\\\.)*"';
const STARTED = new RegExp(`execve\\(${WORD}, (\\[(?:${WORD}(?:, )?)*\\])`, "g");

/** Runs the real command under strace. @returns the arguments of every program of QEMU's that it started */
async function programsOf(argv: readonly string[], root: string): Promise<string[][]> {
  const trace = join(temporary(), `trace-${argv.join("-").replaceAll(/[^a-z0-9-]/gi, "_").slice(0, 100)}`);
  const tracer = ["--seccomp-bpf", "-f", "-qq", "-v", "-s", "65536", "-e", "trace=execve", "-o", trace];
  const environment = { ...process.env, BOOTSHIM_ROOT: root, BOOTSHIM_CONFIG: "/dev/null" };
  const ended = await promisify(execFile)("strace", [...tracer, COMMAND, ...argv], { env: environment })
    .then(() => 0, ({ code }: { code: number }) => code);
  // A kernel of noise runs until its time is over, or until it stumbles into a reset.
  expect([argv[0], argv[0] === "run" ? [0, 75] : [0]]).toEqual([argv[0], expect.arrayContaining([ended])]);
  const calls = [...(await readFile(trace, "utf8")).matchAll(STARTED)].map((found): string[] =>
    JSON.parse(found[1] ?? "[]")
  );
  return calls.filter(([program = ""]) => basename(program).startsWith("qemu"));
}

/** What a call of qemu-img says of formats, and which of them it must. */
const IMG_FORMATS: Readonly<Record<string, readonly string[]>> = {
  convert: ["-f", "-O"],
  measure: ["-f", "-O"],
  resize: ["-f"],
  info: ["-f"],
};

function requireImgFormats([, verb = "", ...words]: readonly string[]): void {
  const options = IMG_FORMATS[verb];
  expect([verb, options]).toEqual([verb, expect.any(Array)]);
  for (const option of options ?? []) {
    expect([verb, option, words[words.indexOf(option) + 1]]).toEqual([
      verb,
      option,
      expect.stringMatching(/^(?:raw|qcow2)$/),
    ]);
  }
}

type BlockNode = {
  readonly driver: string;
  readonly "node-name": string;
  readonly file?: string;
  readonly backing?: string | null;
};

/** Every file has a node on top that states its format, and a qcow2 states what lies below it. */
function requireBlockFormats(words: readonly string[]): number {
  for (
    const guessing of [
      "-drive",
      "-hda",
      "-hdb",
      "-cdrom",
      "-pflash",
      "-fda",
      "-sd",
      "-mtdblock",
      "-usbdevice",
    ]
  ) {
    expect(words).not.toContain(guessing);
  }
  const nodes = words.flatMap((word, i): BlockNode[] =>
    words[i - 1] === "-blockdev" ? [JSON.parse(word)] : []
  );
  const files = nodes.filter(({ driver }) => driver === "file");
  for (const file of files) {
    const formats = nodes.filter((node) => node.file === file["node-name"]);
    expect([file, formats]).toEqual([file, [
      expect.objectContaining({ driver: expect.stringMatching(/^(?:raw|qcow2)$/) }),
    ]]);
  }
  const others = nodes.filter(({ driver }) => driver !== "file");
  expect(others).toHaveLength(files.length);
  for (const { driver, backing } of others) {
    expect([driver, driver !== "qcow2" || backing !== undefined]).toEqual([driver, true]);
  }
  return files.length;
}

it.each<[string, Uint8Array]>([
  ["a raw disk", randomRootfs(1024 * 1024)],
  ["a qcow2 disk", qcow2File({ disk: randomRootfs(1024 * 1024) })],
])(
  "HD14 %s is pulled, copied, grown and booted: every format is stated in every call, S2",
  async (_name, rootfs) => {
    const image = osImage({ kernel: randomKernel(), rootfs });
    await using server = await startFaultServer((request) => serveImage(request, image));
    const root = join(temporary(), "root");
    const groupId = await qemuGroupId();
    const expected = groupId === null ? {} : { groupId };
    const reference = `${server.host}/os/demo:1`;
    // No program of QEMU's has a part in what makes an image cached.
    expect(await programsOf(["pull", reference], root)).toEqual([]);
    expect(layoutProblems(root, expected)).toEqual([]);
    for (const { descriptor, bytes } of Object.values(image.layers)) {
      const path = join(root, "images/blobs", ...descriptor.digest.split(":"));
      expect((await readFile(path)).equals(bytes)).toBe(true);
    }
    const machine = [
      "prepare",
      reference,
      "--pull",
      "never",
      "--accel",
      "tcg",
      "--network",
      "none",
      "--machine",
    ];
    const calls = [
      ...await programsOf([...machine, "vm-raw", "--clone", "copy", "--disk-format", "raw"], root),
      ...await programsOf([...machine, "vm-qcow2", "--clone", "copy", "--disk-format", "qcow2"], root),
      ...await programsOf(
        [...machine, "vm-grown", "--clone", "copy", "--disk-format", "qcow2", "--disk-size", "3MiB"],
        root,
      ),
      ...await programsOf(
        [...machine, "vm-overlay", "--disk-size", "3MiB", "--data-disk", "1MiB,data"],
        root,
      ),
      ...await programsOf([
        ...["run", reference, "--pull", "never", "--accel", "tcg", "--network", "none", "--memory", "64MiB"],
        ...["--timeout", "1", "--data-disk", "1MiB,data"],
      ], root),
    ];
    const isImg = ([program = ""]: readonly string[]) => basename(program) === "qemu-img";
    calls.filter(isImg).forEach(requireImgFormats);
    expect(new Set(calls.filter(isImg).map(([, verb]) => verb))).toEqual(
      new Set(["convert", "measure", "resize"]),
    );
    const files = calls.filter((call) => !isImg(call)).map(requireBlockFormats);
    // The guest's own disk, what lies below it, and the other one.
    expect(Math.max(...files)).toBeGreaterThanOrEqual(3);
    expect(layoutProblems(root, expected)).toEqual([]);
    expect(machineProblems(root, expected)).toEqual([]);
  },
);
