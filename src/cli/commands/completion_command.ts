import { existsSync } from "node:fs";
import type { Command } from "commander";
import { z } from "zod";
import { listMachines } from "../../agent/machines.ts";
import { BootshimClient } from "../../api/client.ts";
import { loadSettings } from "../../config/settings.ts";
import { ShimError } from "../../errors.ts";
import { completeWords, type Completion, type LookUp } from "../completion/complete_words.ts";
import { SHELL_SCRIPTS } from "../completion/shell_scripts.ts";
import { addExamples } from "../examples.ts";
import type { Composition } from "../invocation.ts";
import { printable } from "../printable.ts";

const shell = z.enum(["bash", "zsh", "fish"]);

/** `completion SHELL` prints what makes that shell complete our commands; that script asks `completion candidates`. */
export function registerCompletion(program: Command, composition: Composition): void {
  const { terminal } = composition;
  const command = program.command("completion")
    .argument("<shell>", "bash, zsh or fish")
    .argument("[word...]", "what such a script asks about")
    // What follows the shell is for its own script.
    .usage("bash|zsh|fish")
    .description("print a script that makes a shell complete commands, options, machines and images");
  addExamples(command, ["completion bash > /etc/bash_completion.d/bootshim", "completion fish | source"]);
  command.action(async (asked: string, typed: readonly string[]) => {
    if (asked === "candidates") {
      return terminal.writeOut(formatCompletion(await completeWords(program, typed, lookUpOf(composition))));
    }
    const known = shell.safeParse(asked);
    if (known.success && typed.length === 0) return terminal.writeOut(SHELL_SCRIPTS[known.data]);
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot complete in ${JSON.stringify([asked, ...typed].join(" "))}: must be ${
        shell.options.join(", ")
      }`,
      { details: { remedy: "see: bootshim completion --help" } },
    );
  });
}

function formatCompletion({ candidates, paths }: Completion): string {
  return [
    // A blank or a quote would have to be quoted in three ways; no name of ours has one.
    ...candidates.filter(({ word }) => /^[^\s'"\\$`]+$/.test(word)).map(({ word, summary }) =>
      `${printable(word)}\t${printable(summary)}`
    ),
    `:${paths}`,
  ].map((line) => `${line}\n`).join("");
}

/** Whatever is wrong with root, configuration or service: a key press is no place to tell it, and makes no folder. */
function lookUpOf({ environment, openContext }: Composition): LookUp {
  return async (kind, options) => {
    try {
      const socketPath = options.get("--socket") ?? (environment.variables["BOOTSHIM_SOCKET"] || undefined);
      if (socketPath !== undefined) {
        const service = new BootshimClient({ socketPath });
        return kind === "machine"
          ? (await service.machines()).map(({ id }) => id)
          : (await service.images()).map(({ reference }) => reference);
      }
      const settings = await loadSettings(
        { root: options.get("--root"), config: options.get("--config"), connect: undefined },
        environment,
      );
      if (!existsSync(settings.rootDirectory)) return [];
      const context = await openContext(settings, () => {});
      return kind === "machine"
        ? (await listMachines(context)).map(({ id }) => id)
        : (await context.content.references()).map(({ name }) => name);
    } catch {
      return [];
    }
  };
}
