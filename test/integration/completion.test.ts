/** The real shells, each on a terminal, with what `completion` printed for it. */
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openTerminal } from "../support/pseudo_terminal.ts";

const BOOTSHIM = fileURLToPath(new URL("../../scripts/bootshim", import.meta.url));
const TAB = "\t";

let work: string;
beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-completion-"));
  await symlink(BOOTSHIM, join(work, "bootshim"));
});
afterEach(async () => await rm(work, { recursive: true, force: true }));

it.each([
  ["bash", "bash --norc --noprofile -i", "source <(bootshim completion bash)"],
  ["zsh", "zsh -f -i", "autoload -U compinit; compinit -u -D; source <(bootshim completion zsh)"],
  ["fish", "fish --no-config", "bootshim completion fish | source"],
])(
  "%s completes a command, an option's word behind an equals sign, and an option",
  async (_, shell, load) => {
    const terminal = await openTerminal(shell, {
      PATH: `${work}:${process.env["PATH"]}`,
      BOOTSHIM_ROOT: join(work, "root"),
      HOME: work,
      PS1: "ready> ",
    });
    try {
      terminal.type(`${load}; echo load''ed\n`);
      await expect(terminal.shows(/^loaded/m)).resolves.toBeUndefined();
      terminal.type(`bootshim comp${TAB}`);
      await expect(terminal.shows(/bootshim completion /)).resolves.toBeUndefined();
      terminal.type(`\x15bootshim prepare --boot=k${TAB}`);
      await expect(terminal.shows(/--boot=kernel/)).resolves.toBeUndefined();
      terminal.type(`\x15bootshim prepare --boot disk --disk-s${TAB}`);
      await expect(terminal.shows(/--disk-size/)).resolves.toBeUndefined();
    } finally {
      await terminal.close();
    }
  },
);
