/**
 * Child of a test: pulls an image from a layout folder, and kills itself at an operation on the file system. Arguments:
 * ROOT LAYOUT AT, the last the operation's number, counted from 0.
 */
import { pullImage } from "../../src/agent/pull_image.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import { openAgent } from "./agent_kit.ts";

const [rootDirectory = "", directory = "", at = ""] = process.argv.slice(2);
let count = 0;

/** The same object, with each of its methods counted. */
function counting<T extends object>(target: T): T {
  return new Proxy(target, {
    get(object, key) {
      const value: unknown = Reflect.get(object, key);
      if (typeof value !== "function") return value;
      return async (...args: unknown[]) => {
        if (count++ === Number(at)) process.kill(process.pid, "SIGKILL");
        const result: unknown = await Reflect.apply(value, object, args);
        return key === "open" && typeof result === "object" && result !== null ? counting(result) : result;
      };
    },
  });
}

const fileSystem: FileSystem = counting(nodeFileSystem);
const content = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
const context = await openAgent(rootDirectory, { content });
const reference = { transport: "oci", directory, tag: "1" } as const;
await pullImage(context, { architecture: "amd64", variant: "virtualization", pull: "missing", reference });
console.log("done");
