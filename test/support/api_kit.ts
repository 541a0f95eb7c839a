import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { bootshimJson } from "./bootshim_command.ts";
import { makeGuestPart } from "./guest_image.ts";
import { randomWord } from "./random_word.ts";
import { type RegistryProxy, startRegistryProxy } from "./registry_proxy.ts";
import { type RegistryServer, startRegistryServer } from "./registry_server.ts";
import { type ServiceProcess, startService } from "./service.ts";

/** A registry with one image, and proxies before it, each of which is a registry of its own to the service. */
export type ApiKit = {
  readonly folder: string;
  readonly proxy: RegistryProxy;
  readonly otherProxy: RegistryProxy;
  /** The image, by way of `proxy`. */
  readonly reference: string;
  /** Starts a service of a root by that name; `api` is the text of its settings of that name. */
  start(name: string, api?: string, argv?: readonly string[]): Promise<ServiceProcess>;
  stop(): Promise<void>;
};

/** A registry with one image, `os/demo:1`, and a proxy before it that can be slow, or lie. */
export type PublishedDemo = {
  /** A folder for whatever the test makes; removed in the end. */
  readonly work: string;
  readonly registry: RegistryServer;
  readonly proxy: RegistryProxy;
  /** The image, by way of the proxy. */
  readonly reference: string;
  /** A root in which the image is complete. */
  readonly maker: { readonly root: string };
  stop(): Promise<void>;
};

export async function publishDemo(): Promise<PublishedDemo> {
  const work = await mkdtemp(join(tmpdir(), "bootshim-demo-"));
  const registry = await startRegistryServer();
  const proxy = await startRegistryProxy(registry.host);
  const maker = { root: join(work, "maker") };
  const parts = `arch=amd64,kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart(
    "initramfs",
  )},rootfs=${await makeGuestPart("rootfs-ext4", { word: randomWord() })}`;
  await bootshimJson(["build", "--tag", `${registry.host}/os/demo:1`, "--config", parts], maker);
  await bootshimJson(["push", `${registry.host}/os/demo:1`], maker);
  return {
    work,
    registry,
    proxy,
    maker,
    reference: `${proxy.host}/os/demo:1`,
    stop: async () => {
      await proxy.stop();
      await registry.stop();
      await rm(work, { recursive: true, force: true });
    },
  };
}

export async function startApiKit(): Promise<ApiKit> {
  const { work, registry, proxy, reference, stop } = await publishDemo();
  const otherProxy = await startRegistryProxy(registry.host);
  return {
    folder: work,
    proxy,
    otherProxy,
    reference,
    start: async (name, api = "", argv = []) => {
      const config = join(work, `${name}.toml`);
      const hosts = [proxy, otherProxy].map(({ host }) => `"${host}"`).join(", ");
      await writeFile(config, `[registry]\ninsecure = [${hosts}]\n[api]\n${api}\n`);
      return await startService({ root: join(work, name), environment: { BOOTSHIM_CONFIG: config }, argv });
    },
    stop: async () => {
      await otherProxy.stop();
      await stop();
    },
  };
}

/** Looks again and again, for twenty seconds at most. */
export async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !await what(); tries++) {
    if (tries > 1000) throw new Error("it did not come to that");
    await wait(20);
  }
}
