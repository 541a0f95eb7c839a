import type { z } from "zod";
import { FRAGMENTS } from "../../hypervisor/domain_xml/fragment.ts";
import { bootOptions, imageOptions, machineOptions } from "../commands/wish_options.ts";
import { globalOptions } from "../global_options.ts";

/** What may stand at a place of the command line: known words, something of this host, or what nobody can tell. */
export type ValueKind =
  | { readonly kind: "words"; readonly words: readonly string[] }
  | {
    readonly kind: "machine" | "image" | "machine or image" | "command" | "file" | "directory" | "unknown";
  };

const words = (...words: readonly string[]): ValueKind => ({ kind: "words", words });
const wordsOf = (schema: z.ZodEnum<Record<string, string>>): ValueKind => words(...schema.options);
const ARCHITECTURES = words("amd64", "arm64");
const UNKNOWN: ValueKind = { kind: "unknown" };
const FILE: ValueKind = { kind: "file" };
const DIRECTORY: ValueKind = { kind: "directory" };

/** By an option's long name: what its value may be. Every option that takes one has a row. */
export const OPTION_VALUES: Readonly<Record<string, ValueKind>> = {
  "--root": DIRECTORY,
  "--config": FILE,
  "--connect": words("qemu:///system", "qemu:///session"),
  "--socket": FILE,
  "--output": wordsOf(globalOptions.shape.output.unwrap()),
  "--log-level": words(...globalOptions.shape.logLevel.unwrap().options),
  "--log-format": wordsOf(globalOptions.shape.logFormat.unwrap()),
  "--arch": ARCHITECTURES,
  "--variant": words("virtualization", "metal"),
  "--pull": wordsOf(imageOptions.shape.pull),
  "--boot": wordsOf(bootOptions.shape.boot),
  "--firmware": wordsOf(bootOptions.shape.firmware),
  "--cmdline": UNKNOWN,
  "--append": UNKNOWN,
  "--machine": { kind: "machine" },
  "--disk-size": UNKNOWN,
  "--disk-format": wordsOf(machineOptions.shape.diskFormat),
  "--clone": wordsOf(machineOptions.shape.clone),
  "--memory": UNKNOWN,
  "--cpus": UNKNOWN,
  "--accel": wordsOf(machineOptions.shape.accel),
  "--network": words("none", "user"),
  "--data-disk": UNKNOWN,
  "--ignition": FILE,
  "--user-data": FILE,
  "--metadata": FILE,
  "--uuid": UNKNOWN,
  "--timeout": UNKNOWN,
  "--fragment": words(...FRAGMENTS),
  "--max-bytes": UNKNOWN,
  "--keep-free-bytes": UNKNOWN,
  "--min-age": UNKNOWN,
  "--type": UNKNOWN,
  "--tag": UNKNOWN,
  "--format": words("ironcore", "spec"),
  "--annotation": UNKNOWN,
  "--mode": words("0660", "0600"),
  "--group": UNKNOWN,
  "--allow-uid": UNKNOWN,
  "--listen": UNKNOWN,
};

/** By an argument's name in the help: what it may be. */
export const ARGUMENT_VALUES: Readonly<Record<string, ValueKind>> = {
  "ref": { kind: "image" },
  "ref|digest": { kind: "image" },
  "ref-and-target": { kind: "image" },
  "src": { kind: "image" },
  "dst": UNKNOWN,
  "repository": UNKNOWN,
  "layout": UNKNOWN,
  "id": { kind: "machine" },
  "id|ref": { kind: "machine or image" },
  "verb": words("show"),
  "command": { kind: "command" },
  "shell": words("bash", "zsh", "fish"),
  "word": UNKNOWN,
};
