import { z } from "zod";
import { definitionOfMachine } from "../../agent/definition.ts";
import {
  defineMachine,
  destroyMachine,
  type DomainReport,
  shutdownMachine,
  startMachine,
  undefineMachine,
  type VerbOptions,
} from "../../agent/domains.ts";
import type { AgentContext } from "../../agent/agent_context.ts";
import { listMachines, releaseMachine, showMachine } from "../../agent/machines.ts";
import type { ErrorCode } from "../../errors.ts";
import { FRAGMENTS } from "../../hypervisor/domain_xml/fragment.ts";
import {
  definitionDocument,
  domainReport,
  listedMachine,
  releasedMachine,
  shownMachine,
} from "../documents.ts";
import {
  machinePutRequest,
  machineRequest,
  MAX_PREPARE_BODY_BYTES,
  prepareWishOf,
} from "../prepare_request.ts";
import { type Route, route } from "../route.ts";
import { answerPrepare, PREPARE_ERRORS, PREPARED } from "./prepare_routes.ts";

const params = z.strictObject({ id: z.string().max(64) });

const READ_ERRORS = [
  "REQUEST_INVALID",
  "MACHINE_NOT_FOUND",
  "CACHE_LAYOUT_INVALID",
  "BUSY",
  "IO_ERROR",
] as const;
/** A fragment's files may have to be made first. */
const FRAGMENT_ERRORS = [...READ_ERRORS, "LOCK_TIMEOUT", "NO_SPACE"] as const;
const VERB_ERRORS: readonly ErrorCode[] = [
  ...READ_ERRORS,
  ...[
    "CONFLICT",
    "IN_USE",
    "LOCK_TIMEOUT",
    "CANCELLED",
    "CONTENT_CORRUPT",
    "HYPERVISOR_UNAVAILABLE",
  ] as const,
  ...[
    "HYPERVISOR_LIBRARY_MISSING",
    "HYPERVISOR_TIMEOUT",
    "DOMAIN_INVALID",
    "DOMAIN_FAILED",
    "QEMU_FAILED",
  ] as const,
];

type Verb = (context: AgentContext, id: string, options: VerbOptions) => Promise<DomainReport>;

const VERBS: Readonly<
  Record<string, { readonly summary: string; readonly run: Verb }>
> = {
  define: { summary: "Define the machine in libvirt", run: defineMachine },
  start: {
    summary: "Boot the machine, defining it first when needed",
    run: startMachine,
  },
  shutdown: { summary: "Ask the guest to power off", run: shutdownMachine },
  destroy: { summary: "Cut the guest's power", run: destroyMachine },
  undefine: { summary: "Remove the definition from libvirt; disks stay", run: undefineMachine },
};

export const MACHINE_ROUTES: readonly Route[] = [
  route({
    method: "get",
    path: "/v1/machines",
    summary: "The prepared machines",
    success: [{ status: 200, description: "the machines, by id", schema: z.array(listedMachine) }],
    errors: ["BUSY", "IO_ERROR"],
    handle: async (_input, { context }) => ({ status: 200, json: await listMachines(context) }),
  }),
  route({
    method: "get",
    path: "/v1/machines/{id}",
    summary: "Everything about one machine",
    params,
    success: [{ status: 200, description: "the machine", schema: shownMachine }],
    errors: VERB_ERRORS,
    handle: async ({ params }, { context }) => ({ status: 200, json: await showMachine(context, params.id) }),
  }),
  route({
    method: "put",
    path: "/v1/machines/{id}",
    summary: "Prepare this machine; again with the same wishes changes nothing, with others is a conflict",
    params,
    body: machinePutRequest,
    maxBodyBytes: MAX_PREPARE_BODY_BYTES,
    isLasting: true,
    success: PREPARED,
    errors: PREPARE_ERRORS,
    handle: async ({ params: { id }, body, headers }, service) => {
      service.checkReference(body.reference);
      const machine = { ...(body.machine ?? machineRequest.parse({})), id };
      return await answerPrepare(prepareWishOf({ ...body, machine }, service.context), { headers, service });
    },
  }),
  route({
    method: "delete",
    path: "/v1/machines/{id}",
    summary: "Release the machine: its definition, disks and record",
    params,
    isLasting: true,
    success: [{ status: 200, description: "released", schema: releasedMachine }],
    errors: VERB_ERRORS,
    handle: async ({ params: { id } }, { context, errands, events }) => {
      const released = await errands.take(() => releaseMachine(context, id), { row: id });
      events.publish("machine.released", { machine: id });
      return { status: 200, json: released };
    },
  }),
  route({
    method: "get",
    path: "/v1/machines/{id}/definition",
    summary:
      "All of the machine's definitions at once, as JSON: domain XML, its fragments, and the QEMU command",
    params,
    success: [{ status: 200, description: "the definitions", schema: definitionDocument }],
    errors: FRAGMENT_ERRORS,
    handle: async ({ params }, { context }) => ({
      status: 200,
      json: await definitionOfMachine(context, params.id),
    }),
  }),
  route({
    method: "get",
    path: "/v1/machines/{id}/domain.xml",
    summary: "The machine's libvirt domain XML, or a fragment of it",
    params,
    query: z.strictObject({ fragment: z.enum(FRAGMENTS).optional() }),
    success: [{ status: 200, description: "XML", mediaType: "application/xml" }],
    errors: FRAGMENT_ERRORS,
    handle: async ({ params: { id }, query: { fragment } }, { context }) => {
      const { domainXml, fragments } = await definitionOfMachine(context, id, {
        isMerged: fragment !== undefined,
      });
      return { status: 200, text: fragment ? fragments[fragment] : domainXml, mediaType: "application/xml" };
    },
  }),
  route({
    method: "get",
    path: "/v1/machines/{id}/qemu-command",
    summary: "The machine's QEMU command, argument by argument",
    params,
    success: [{ status: 200, description: "argv", schema: z.array(z.string()) }],
    errors: READ_ERRORS,
    handle: async ({ params }, { context }) => {
      const { qemuCommand } = await definitionOfMachine(context, params.id, { isMerged: false });
      return { status: 200, json: qemuCommand };
    },
  }),
  ...Object.entries(VERBS).map(([name, { summary, run }]) =>
    route({
      method: "post",
      path: `/v1/machines/{id}/${name}`,
      summary,
      params,
      isLasting: true,
      success: [{ status: 200, description: "the domain's state afterwards", schema: domainReport }],
      errors: VERB_ERRORS,
      // A caller that goes away does not undo what it asked for; libvirt's events tell what came of it.
      handle: async ({ params: { id } }, { context, errands }) => ({
        status: 200,
        json: await errands.take(() => run(context, id, {}), { row: id }),
      }),
    })
  ),
];
