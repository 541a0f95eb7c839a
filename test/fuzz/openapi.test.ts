/**
 * The service against its own OpenAPI document: requests of every route, right and wrong, drawn from the schemas of the
 * document, and answers checked with another implementation of JSON Schema than the one that wrote it.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { bootshimJson } from "../support/bootshim_command.ts";
import { FUZZ_RUNS } from "../support/fuzz_runs.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { type JsonSchema, type KnownWords, spoiled, validValues } from "../support/json_schema_values.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import { type Answer, type ServiceProcess, startService } from "../support/service.ts";

type Parameter = {
  readonly name: string;
  readonly in: "path" | "query";
  readonly required: boolean;
  readonly schema: JsonSchema;
};
type Content = Readonly<Record<string, { readonly schema: JsonSchema }>>;
type Described = {
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>;
};
type Document = { readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>> };
type Drawn = {
  readonly path: string;
  readonly body: unknown;
  readonly isAsync: boolean;
  readonly type: string;
};

let work: string;
let registry: RegistryServer;
let service: ServiceProcess;
let document: Document;
let words: KnownWords;
const ajv = new Ajv2020({ strict: false, validateFormats: false });

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-openapi-"));
  registry = await startRegistryServer();
  const root = join(work, "root");
  const reference = `${registry.host}/os/demo:1`;
  const parts = `arch=amd64,kernel=${await makeGuestPart("kernel")},initramfs=${await makeGuestPart(
    "initramfs",
  )}`;
  await bootshimJson(["build", "--tag", reference, "--config", parts], { root });
  // What one request removes, another brings back.
  await bootshimJson(["push", reference], { root });
  const config = join(work, "config.toml");
  await writeFile(config, `[registry]\ninsecure = ["${registry.host}"]\n[api]\nmax_pending = 100000\n`);
  service = await startService({
    root,
    environment: { BOOTSHIM_CONFIG: config },
    argv: ["--connect", "test:///default"],
  });
  document = (await service.ask("/openapi.json")).json as Document;
  ajv.addSchema(document, "api");
  const [image] = (await service.ask("/v1/images")).json as { digest: string }[];
  words = {
    id: ["vm-1", "vm-2", "vm.3", "none"],
    digest: [String(image?.digest), `sha256:${"0".repeat(64)}`],
    // Nothing that leaves this host.
    reference: [
      ...Array<string>(9).fill(reference),
      `${registry.host}/os/none:1`,
      `${registry.host}/os/demo@sha256:${"0".repeat(64)}`,
      "x",
    ],
    architecture: ["amd64", "x86_64", "arm64", "z80"],
    variant: ["virtualization", "kvm", "metal"],
    network: ["none", "user", "default", "bridge:br0"],
    append: ["quiet", "root=/dev/vda", "a=b c"],
  };
});

afterAll(async () => {
  await service.stop();
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

/** Disks the size of what numbers may say would be made in earnest; so would guests. */
function tamed(body: unknown): unknown {
  if (typeof body !== "object" || body === null || !("machine" in body)) return body;
  const { machine } = body;
  if (typeof machine !== "object" || machine === null) return body;
  if ("dataDisks" in machine && Array.isArray(machine.dataDisks)) {
    machine.dataDisks.length = Math.min(machine.dataDisks.length, 2);
  }
  return body;
}

function requestsOf(path: string, { parameters = [], requestBody }: Described): fc.Arbitrary<Drawn> {
  const texts = (parameter: Parameter) => {
    const valid = validValues(parameter.schema, words, parameter.name).map(String);
    const any = fc.oneof({ weight: 12, arbitrary: valid }, {
      weight: 1,
      arbitrary: fc.string({ unit: "binary" }),
    });
    return parameter.required ? any : fc.option(any, { nil: undefined });
  };
  const schema = requestBody?.content["application/json"]?.schema;
  const valid = schema ? validValues(schema, words) : fc.constant(undefined);
  const bodies = schema
    ? fc.oneof({ weight: 6, arbitrary: valid }, { weight: 2, arbitrary: spoiled(valid) }, {
      weight: 1,
      arbitrary: fc.oneof(
        fc.jsonValue(),
        fc.string().map((text) => new String(text)),
        fc.constant(undefined),
      ),
    })
    : valid;
  return fc.record({
    values: fc.record(Object.fromEntries(parameters.map((each) => [each.name, texts(each)]))),
    body: bodies.map(tamed),
    isAsync: fc.constantFrom(true, false, false, false, false),
    type: fc.constantFrom(...Array<string>(9).fill("application/json"), "text/plain"),
    extra: fc.constantFrom(...Array<string>(9).fill(""), "x=1"),
  }).map(({ values, body, isAsync, type, extra }) => {
    let filled = path;
    const query = new URLSearchParams(extra);
    for (const { name, in: place } of parameters) {
      const value = values[name];
      if (value === undefined) continue;
      // What is not well-formed cannot be spelt in a URL.
      if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value.toWellFormed()));
      else query.set(name, value);
    }
    return { path: query.size > 0 ? `${filled}?${query}` : filled, body, isAsync, type };
  });
}

/** What the answer is that the document has not; undefined when all is as it says. */
function differenceOf(answer: Answer, { responses }: Described, pointer: string): string | undefined {
  const { status, headers, text, json } = answer;
  const described = responses[String(status)];
  if (!described) return `status ${status} is not described: ${text.slice(0, 300)}`;
  const type = String(headers["content-type"] ?? "").split(";")[0] ?? "";
  const content = described.content ?? {};
  if (!Object.hasOwn(content, type)) return `${status} has type "${type}", not ${Object.keys(content)}`;
  if (json === undefined) return undefined;
  const escaped = type.replaceAll("/", "~1");
  const check = ajv.getSchema(`api#${pointer}/responses/${status}/content/${escaped}/schema`);
  if (!check) return `no schema of ${status}`;
  if (!check(json)) {
    return `${status} is not what the schema says: ${ajv.errorsText(check.errors)} in ${text.slice(0, 500)}`;
  }
  return undefined;
}

/** libvirt's test driver has an "internal error" where QEMU's says that the domain is not in the state for it. */
function isTestDriver({ text }: Answer): boolean {
  return text.includes('"code":"DOMAIN_FAILED"') && text.includes('"libvirtDomain":12,');
}

/** Who asks for what this host has not is told so, with what to do: that is no failure of the service. */
function isLackOfHost({ text }: Answer, body: unknown): boolean {
  const machine = z.looseObject({ machine: z.looseObject({ hugepages: z.literal(true) }) });
  return text.includes('"code":"HYPERVISOR_UNAVAILABLE"') && text.includes("huge pages") &&
    machine.safeParse(body).success;
}

it("answers as its document says, whatever it is asked, and never with 5xx", async () => {
  const rows = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({ path, method, described }))
  )
    // Streams without an end, and what examines the host for seconds, are asked elsewhere.
    .filter(({ path }) => path !== "/v1/events" && path !== "/v1/host");
  expect(rows.length).toBeGreaterThan(25);
  const seen = new Map<string, number>();
  const request = fc.oneof(
    ...rows.map(({ path, method, described }) =>
      requestsOf(path, described).map((drawn) => ({ ...drawn, row: { path, method, described } }))
    ),
  );
  await fc.assert(
    fc.asyncProperty(request, async ({ path, body, isAsync, type, row }) => {
      const answer = await service.ask(path, {
        method: row.method.toUpperCase(),
        ...(body === undefined
          ? {}
          : { body: body instanceof String ? String(body) : JSON.stringify(body) ?? "" }),
        headers: {
          ...(isAsync ? { prefer: "respond-async" } : {}),
          ...(body === undefined ? {} : { "content-type": type }),
        },
      });
      const name = `${row.method} ${row.path} ${answer.status}`;
      seen.set(name, (seen.get(name) ?? 0) + 1);
      const pointer = `/paths/${row.path.replaceAll("~", "~0").replaceAll("/", "~1")}/${row.method}`;
      expect(differenceOf(answer, row.described, pointer)).toBeUndefined();
      if (!isTestDriver(answer) && !isLackOfHost(answer, body)) {
        expect(answer.status, answer.text.slice(0, 300)).toBeLessThan(500);
      }
    }),
    { numRuns: Math.max(FUZZ_RUNS, 600) },
  );
  console.log([...seen].sort().map(([name, count]) => `${count} ${name}`).join("\n"));
}, 3_600_000);
