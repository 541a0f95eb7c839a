import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { shortDigest } from "../../../src/image/digest.ts";
import { isoImage } from "../../support/iso_bytes.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { randomWord } from "../../support/random_word.ts";
import { runTestProgram } from "../../support/test_program.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const run = (...argv: string[]) => runTestProgram(argv, { directory: temporary() });
const CLEAR = "\x1b[2J\nfake line";

/** An image whose free words try to write to the terminal. */
async function publishHostile() {
  const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() }, {
    commandLine: "console=ttyS0",
    variant: "virtualization",
  });
  const hostile = osImage({ kernel: randomKernel() }, {
    architecture: `amd64${CLEAR}`,
    os: `linux${CLEAR}`,
    variant: CLEAR,
  });
  return { ...await publishLayout(join(temporary(), "layout"), [image, hostile]), image, hostile };
}

describe("inspect", () => {
  it("draws index, choice, layers and modes for people, and no word of a stranger's raw", async () => {
    const { index, image, hostile, name } = await publishHostile();
    const { exitCode, stdout, stderr } = await run("inspect", "oci:layout:1");
    expect([exitCode, stderr]).toEqual([0, ""]);
    expect(stdout).not.toMatch(/(?!\n)\p{Cc}/u);
    const word = "amd64\\u001b[2J\\u000afake line  linux\\u001b[2J\\u000afake line";
    const layer = (role: "kernel" | "initramfs") => {
      const blob = image.layers[role];
      return blob && shortDigest(blob.descriptor.digest);
    };
    expect(stdout.split("\n")).toEqual([
      `reference  ${name}`,
      "boot       kernel, firmware none; chosen: the kernel is a valid bzImage with initramfs",
      "cmdline    console=ttyS0",
      "",
      `index ${index.descriptor.digest}`,
      `|-- ${"amd64".padEnd(29)}  ${"linux".padEnd(29)}  virtualization  ` +
      `${image.manifest.descriptor.digest}  <- chosen`,
      `|   |-- kernel     8.02 KiB  ${layer("kernel")}  not cached  application/vnd.ironcore.image.kernel`,
      "|   |   `-- bzImage for amd64, 6.1.0-test (builder@host) #1 SMP",
      expect.stringMatching(
        `^\\|   \`-- initramfs  .+ B +${
          layer("initramfs")
        }  not cached  application/vnd.ironcore.image.initramfs$`,
      ),
      expect.stringMatching(/^`-- amd64/),
      "",
      "boot",
      "|-- disk    no      the image has no rootfs layer",
      "|-- kernel  chosen  the kernel is a valid bzImage with initramfs",
      "|-- uki     no      the image has no uki layer",
      "`-- iso     no      the image has no iso layer",
      "note: the modes were told from small parts of layers, not yet verified; prepare decides again",
      "",
    ]);
    const stranger = stdout.split("\n")[9];
    expect(stranger).toContain(word);
    expect(stranger).toContain(hostile.manifest.descriptor.digest);
  });

  it("tells the boot that was asked for, and the command line that counts then", async () => {
    await publishHostile();
    const { stdout } = await run("inspect", "oci:layout:1", "--firmware", "uefi", "--append", "quiet");
    expect(stdout.split("\n").slice(1, 3)).toEqual([
      "boot       kernel, firmware uefi; chosen: the kernel is a valid bzImage with initramfs, under uefi",
      "cmdline    console=ttyS0 quiet",
    ]);
    const impossible = await run("inspect", "oci:layout:1", "--boot", "disk", "-o", "json");
    expect([impossible.exitCode, JSON.parse(impossible.stdout).boot]).toEqual([0, null]);
  });

  it("draws a mode that may be possible as unknown", async () => {
    const image = osImage({ iso: isoImage({ entries: [{ platform: 0 }], catalogSector: 500 }) });
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    const { digest } = image.layers.iso?.descriptor ?? {};
    await truncate(join(reference.directory, "blobs", ...(digest ?? "").split(":")), 70_000);
    expect((await run("inspect", "oci:layout:1")).stdout).toContain(
      "`-- iso     unknown  whether the ISO image boots cannot be told from its first 64 KiB\n",
    );
  });

  it("draws a lone manifest with its layers below it", async () => {
    const image = osImage({ kernel: randomKernel() });
    await publishLayout(join(temporary(), "layout"), [image]);
    const { digest } = image.manifest.descriptor;
    const { stdout } = await run("inspect", `oci:layout@${digest}`);
    expect(stdout).toContain(`\nmanifest ${digest}\n\`-- kernel  8.02 KiB  `);
  });
});

describe("pull, images and tag", () => {
  it("pull into the cache, list it, and name it once more", async () => {
    const { index, image, name } = await publishHostile();
    const pulled = JSON.parse((await run("pull", "oci:layout:1", "-o", "json")).stdout);
    expect(pulled).toEqual({
      reference: name,
      digest: index.descriptor.digest,
      manifestDigest: image.manifest.descriptor.digest,
      cached: false,
      transferredBytes: expect.any(Number),
    });
    expect(await run("pull", "oci:layout:1")).toEqual({
      exitCode: 0,
      stdout: `${name} ${index.descriptor.digest} cached\n`,
      stderr: "",
    });
    const word = randomWord();
    expect(await run("tag", "oci:layout:1", `127.0.0.1:1/os/${word}`)).toEqual({
      exitCode: 0,
      stdout: `127.0.0.1:1/os/${word}:latest ${index.descriptor.digest}\n`,
      stderr: "",
    });
    const { stdout } = await run("images");
    expect(stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["REFERENCE", "DIGEST", "COMPLETE FOR", "SIZE"],
      ...[`127.0.0.1:1/os/${word}:latest`, name].map((reference) => [
        reference,
        shortDigest(index.descriptor.digest),
        "amd64/virtualization",
        expect.stringMatching(/^[0-9.]+ KiB$/),
      ]),
      [""],
    ]);
    const listed = JSON.parse((await run("images", "-o", "json")).stdout);
    expect(listed.map(({ reference }: { reference: string }) => reference)).toEqual([
      `127.0.0.1:1/os/${word}:latest`,
      name,
    ]);
  });

  it("shows one plain line of progress, none when quiet or for a program", async () => {
    await publishHostile();
    const loud = await run("pull", "oci:layout:1");
    expect(loud.stderr).toMatch(
      /^pulling 100% .* of .*, .*\/s, 0 s left \(kernel sha256:.*, initramfs sha256:.*\)\n$/,
    );
    for (const flag of ["-q", "-ojson"]) {
      expect((await run("--root", `root${flag}`, "pull", "oci:layout:1", flag)).stderr).toBe("");
    }
  });

  it("end with 66 and a remedy for what is not there", async () => {
    const reference = `127.0.0.1:1/os/${randomWord()}:1`;
    expect(await run("pull", reference, "--pull", "never")).toEqual({
      exitCode: 66,
      stdout: "",
      stderr:
        `bootshim: IMAGE_NOT_FOUND: Cannot use image "${reference}": it is not complete in the cache, ` +
        `and pulling is "never" (run: bootshim pull ${reference})\n`,
    });
  });
});

describe("build", () => {
  it("makes an image of files, of every --config one manifest, that inspect then shows", async () => {
    await writeFile(join(temporary(), "vmlinuz"), randomKernel());
    const word = randomWord();
    await writeFile(join(temporary(), "line"), `quiet word=${word}\n`);
    const name = `127.0.0.1:1/os/${word}:1`;
    const argv = ["build", "--tag", name, "--config", "arch=amd64,variant=metal,kernel=vmlinuz"];
    const built = await run(...argv, "--config", "arch=amd64,kernel=vmlinuz,cmdline=line", "-o", "json");
    expect([built.exitCode, built.stderr]).toEqual([0, ""]);
    const document = JSON.parse(built.stdout);
    expect(document).toMatchObject({
      reference: name,
      manifests: [{ architecture: "amd64", variant: "virtualization" }, {
        architecture: "amd64",
        variant: "metal",
      }],
    });
    const inspected = JSON.parse((await run("inspect", name, "--pull", "never", "-o", "json")).stdout);
    expect(inspected).toMatchObject({
      digest: document.digest,
      manifestDigest: document.manifests[0].digest,
      commandLine: `quiet word=${word}`,
    });
  });
});
