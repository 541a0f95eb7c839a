/** What a collector of OpenTelemetry gets from the real service, by the runtime's own exporter. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { z } from "zod";
import { bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { randomWord } from "../support/random_word.ts";
import { startService } from "../support/service.ts";

const value = z.looseObject({ stringValue: z.string().optional(), doubleValue: z.number().optional() });
const attribute = z.looseObject({ key: z.string(), value });
const span = z.looseObject({
  traceId: z.string(),
  spanId: z.string(),
  parentSpanId: z.string().optional(),
  name: z.string(),
  attributes: z.array(attribute).default([]),
});
const exported = z.looseObject({
  resourceSpans: z.array(z.looseObject({ scopeSpans: z.array(z.looseObject({ spans: z.array(span) })) })),
});

let work: string;
let collector: Server;
const spans: z.infer<typeof span>[] = [];

beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-traces-"));
  spans.length = 0;
  collector = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += chunk;
    if (request.url === "/v1/traces") {
      const { resourceSpans } = exported.parse(JSON.parse(text));
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)));
    }
    response.end("{}");
  }).listen(0, "127.0.0.1");
  await once(collector, "listening");
});
afterEach(async () => {
  collector.close();
  await rm(work, { recursive: true, force: true });
});

function attributeOf({ attributes }: z.infer<typeof span>, key: string): string | number | undefined {
  const found = attributes.find((each) => each.key === key)?.value;
  return found?.stringValue ?? found?.doubleValue;
}

it("a request, its operation and each phase are spans of the caller's trace", async () => {
  const root = join(work, "root");
  const id = `traced-${randomWord()}`;
  const name = "registry.example.org/os/traced:1";
  const parts = `arch=amd64,kernel=${await makeGuestPart("kernel")}`;
  await bootshimJson(["build", "--tag", name, "--config", parts], { root });
  const address = collector.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const service = await startService({
    root,
    environment: {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_BSP_SCHEDULE_DELAY: "100",
    },
  });
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
  const parentId = "00f067aa0ba902b7";
  try {
    const headers = { traceparent: `00-${traceId}-${parentId}-01` };
    const body = { reference: name, machine: { network: "none" } };
    expect(await service.ask(`/v1/machines/${id}`, { method: "PUT", body, headers })).toMatchObject({
      status: 200,
    });
    expect(await service.ask("/v1/machines/none", { headers })).toMatchObject({ status: 404 });
    await vi.waitFor(
      () => expect(spans.filter((each) => each.traceId === traceId).length).toBeGreaterThan(5),
      20_000,
    );
  } finally {
    await service.stop();
  }
  const ours = spans.filter((each) => each.traceId === traceId);
  const named = (name: string) => {
    const found = ours.filter((each) => each.name === name);
    if (found.length !== 1) {
      throw new Error(`${found.length} spans "${name}" of ${ours.map((each) => each.name)}`);
    }
    return found[0] as z.infer<typeof span>;
  };
  const request = named("PUT /v1/machines/{id}");
  expect(request.parentSpanId).toBe(parentId);
  expect(attributeOf(request, "http.response.status_code")).toBe(200);
  const operation = named("prepare");
  expect(operation.parentSpanId).toBe(request.spanId);
  expect([attributeOf(operation, "reference"), attributeOf(operation, "machine")]).toEqual([name, id]);
  for (const phase of ["waiting", "resolving", "preparing"]) {
    expect(named(phase).parentSpanId).toBe(operation.spanId);
  }
  const refused = named("GET /v1/machines/{id}");
  expect([attributeOf(refused, "error.type"), attributeOf(refused, "http.response.status_code")]).toEqual([
    "MACHINE_NOT_FOUND",
    404,
  ]);
});
