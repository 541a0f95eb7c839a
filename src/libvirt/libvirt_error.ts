import { type ErrorCode, ShimError } from "../errors.ts";

/** A thread's last error, read on that thread right after the call that failed. */
export type LibvirtFailure = {
  /** virErrorNumber; 0 when libvirt left no error. */
  readonly code: number;
  /** virErrorDomain: which part of libvirt raised it. */
  readonly domain: number;
  readonly message: string | null;
};

/** What was asked for: the same number means different things when connecting, defining and operating. */
export type LibvirtStep = "open" | "define" | "operate";

/** VIR_FROM_RPC: the client's own half of the wire. */
const FROM_RPC = 7;
/** VIR_FROM_DOMAIN: reading and keeping domain definitions. */
const FROM_DOMAIN = 20;
/** VIR_FROM_URI. */
const FROM_URI = 45;

/** VIR_ERR_NO_DOMAIN. */
export const NO_DOMAIN = 42;

/** More of libvirt's words than this are a QEMU's whole log; a message is read by people. */
const MESSAGE_CHARACTERS = 4_000;

const REACH_REMEDY =
  "start libvirt's daemon (systemctl start libvirtd); where it runs, be root or in the group libvirt";
const ACCESS_REMEDY = "run as root or as a member of the group libvirt";

type Rule = {
  readonly step?: LibvirtStep;
  readonly domain?: number;
  /** virErrorNumbers; absent for any. */
  readonly codes?: readonly number[];
  readonly gives: ErrorCode;
  readonly remedy?: string;
};

/** First match wins, none is DOMAIN_FAILED. Numbers, never texts: libvirt translates its texts. */
const RULES: readonly Rule[] = [
  { codes: [NO_DOMAIN], gives: "MACHINE_NOT_FOUND" },
  // OPERATION_DENIED, AUTH_FAILED, AUTH_CANCELLED, ACCESS_DENIED, AUTH_UNAVAILABLE: the agent's right, not its
  // caller's, is what lacks; so this is no POLICY_DENIED
  { codes: [29, 45, 79, 88, 94], gives: "HYPERVISOR_UNAVAILABLE", remedy: ACCESS_REMEDY },
  // OPERATION_TIMEOUT
  { codes: [68], gives: "HYPERVISOR_TIMEOUT" },
  {
    step: "open",
    domain: FROM_URI,
    gives: "CONFIG_INVALID",
    remedy: "give a libvirt URI such as qemu:///system",
  },
  { step: "open", gives: "HYPERVISOR_UNAVAILABLE", remedy: REACH_REMEDY },
  // INTERNAL_ERROR, SYSTEM_ERROR from the wire: the daemon went away under an open connection
  { domain: FROM_RPC, codes: [1, 38], gives: "HYPERVISOR_UNAVAILABLE", remedy: REACH_REMEDY },
  // NO_CONNECT, INVALID_CONN
  { codes: [5, 6], gives: "HYPERVISOR_UNAVAILABLE", remedy: REACH_REMEDY },
  // OPERATION_INVALID: the domain is not in the state for it; who asked can look, nothing failed
  { step: "operate", codes: [55], gives: "CONFLICT" },
  // DOM_EXIST
  { codes: [28], gives: "CONFLICT" },
  // OPERATION_FAILED where a definition is kept: the name or the UUID belongs to another domain
  { step: "define", domain: FROM_DOMAIN, codes: [9], gives: "CONFLICT" },
  // INVALID_ARG, OS_TYPE, NO_KERNEL … NO_DEVICE: what the definition says cannot be
  { step: "define", codes: [8, 16, 17, 18, 19, 20, 21, 22, 23], gives: "DOMAIN_INVALID" },
  // RPC when sending a definition: it exceeds the wire's 4 MiB for a string
  { step: "define", codes: [39], gives: "DOMAIN_INVALID" },
  // XML_ERROR, XML_DETAIL, INVALID_MAC, CONFIG_UNSUPPORTED, CPU_INCOMPATIBLE, XML_INVALID_SCHEMA; some come at start only
  { codes: [27, 35, 44, 67, 91, 92], gives: "DOMAIN_INVALID" },
];

/**
 * Our error for a libvirt failure: libvirt's own text in the message, its numbers in `details`.
 *
 * @param context.action what was tried, as the message's verb phrase
 * @see https://libvirt.org/html/libvirt-virterror.html (libvirt 9.0)
 */
export function libvirtError(
  failure: LibvirtFailure,
  context: { readonly step: LibvirtStep; readonly action: string },
): ShimError {
  const rule = RULES.find((candidate) =>
    (candidate.step === undefined || candidate.step === context.step) &&
    (candidate.domain === undefined || candidate.domain === failure.domain) &&
    (candidate.codes === undefined || candidate.codes.includes(failure.code))
  );
  const text = failure.code === 0 || failure.message === null
    ? "libvirt failed and gave no reason"
    : `libvirt reports "${failure.message.slice(0, MESSAGE_CHARACTERS).trim()}"`;
  return new ShimError(rule?.gives ?? "DOMAIN_FAILED", `Cannot ${context.action}: ${text}`, {
    details: {
      libvirtCode: failure.code,
      libvirtDomain: failure.domain,
      ...(rule?.remedy === undefined ? {} : { remedy: rule.remedy }),
    },
  });
}

/** Whether an error means that the connection is of no more use, and not only the one call. */
export function isConnectionLost(error: ShimError): boolean {
  if (error.code !== "HYPERVISOR_UNAVAILABLE") return false;
  const { libvirtDomain, libvirtCode } = error.details;
  return libvirtDomain === FROM_RPC || libvirtCode === 5 || libvirtCode === 6;
}
