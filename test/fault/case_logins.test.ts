/** Cases of logging in, as whole pulls: the code, the cache before and after, and who heard a secret. */
import { expect, it, vi } from "vitest";
import {
  type AuthorizingOptions,
  authorizingRegistry,
  basic,
  bearerChallenge,
  heardBy,
  tokenBody,
} from "../support/authorizing_registry.ts";
import {
  type CaseRig,
  isManifest,
  isRootfs,
  LOGIN,
  type PullCase,
  usePullCases,
} from "../support/case_kit.ts";
import { respond, type SeenRequest } from "../support/fault_server.ts";

const run = usePullCases();

const PASSWORD = basic(LOGIN.username, LOGIN.password);
const SECRETS = [LOGIN.password, PASSWORD.slice("Basic ".length)];
const here = (port: number) => `registry.example.com:${port}`;
const redirect = (location: string) => respond(307, { headers: { Location: location } });

/** A registry that asks who we are, in some way, and serves the image to whom it knows. */
const asking = (options: (rig: CaseRig) => Partial<AuthorizingOptions>) => (rig: CaseRig) =>
  authorizingRegistry({ serve: rig.serve, ...options(rig) }).script;
/** Asks us to log in at some place. */
const withRealm = (
  realm: (rig: CaseRig, self: string) => string,
  more: Partial<PullCase> = {},
): PullCase => ({
  registry: asking((rig) => ({ challenge: (self) => bearerChallenge(realm(rig, self)) })),
  loginAt: here,
  ends: ["S0", "REALM_REFUSED"],
  heard: ({ registry, storage }) => {
    expect(storage.connections).toBe(0);
    for (const secret of SECRETS) expect(heardBy(registry)).not.toContain(secret);
  },
  ...more,
});
const tokens = (answerToken: AuthorizingOptions["answerToken"], more: Partial<PullCase> = {}): PullCase => ({
  registry: asking(() => answerToken === undefined ? {} : { answerToken }),
  ends: ["S2"],
  ...more,
});
const basicOnly = (challenge: string | readonly string[]): PullCase => ({
  registry: asking(() => ({ challenge: () => challenge, password: PASSWORD })),
  loginAt: here,
  ends: ["S2"],
});
const tokenRequestsOf = (requests: readonly SeenRequest[]) =>
  requests.filter(({ path }) => path.startsWith("/token"));

const CASES: readonly (readonly [name: string, row: PullCase])[] = [
  ["AU01 a token for anybody", tokens(undefined)],
  ["AU01 a password", basicOnly('Basic realm="x"')],
  ["AU01 a password, in capitals", basicOnly("BASIC realm=x")],
  ...[
    (self: string) => `Basic realm=x, ${bearerChallenge(`${self}/token`)}`,
    (self: string) => ["Basic realm=x", bearerChallenge(`${self}/token`)],
    (self: string) => bearerChallenge(`${self}/token`).replace("Bearer", "bEARER"),
  ].map((challenge, i) =>
    [
      `AU01 a token, which is preferred, ${i}`,
      {
        registry: asking(() => ({ challenge })),
        loginAt: here,
        ends: ["S2"],
        heard: ({ registry }) => expect(tokenRequestsOf(registry.requests)).toHaveLength(1),
      } satisfies PullCase,
    ] as const
  ),
  [
    "AU04 a token server in plain HTTP",
    withRealm(({ storage }) => `http://${storage}/token`, { isTls: true }),
  ],
  [
    "AU04 the same host in plain HTTP",
    withRealm(({ storage }) => `http://${storage.replace(/^[^:]*/, "registry.example.com")}/token`, {
      isTls: true,
    }),
  ],
  ...[
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "0177.1",
    "0x7f.1",
    "0.0.0.0",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "10.0.0.1",
    "192.168.0.1",
    "inside.example.com",
    "intranet.example.com",
  ].map((host) =>
    [
      `AU05 a token server at ${host}`,
      withRealm(({ localPort }) => `http://${host}:${localPort}/token`),
    ] as const
  ),
  ["AU06 a token server that redirects elsewhere", {
    registry: asking(({ storage }) => ({ answerToken: () => redirect(`http://${storage}/token`) })),
    loginAt: here,
    ends: ["S0", "REALM_REFUSED"],
    heard: ({ storage }) => expect(storage.connections).toBe(0),
  }],
  ["AU06 a token server that redirects to this host", {
    registry: asking(({ localPort }) => ({
      answerToken: () => redirect(`http://127.0.0.1:${localPort}/token`),
    })),
    loginAt: here,
    ends: ["S0", "REALM_REFUSED"],
  }],
  ["AU07 storage that asks who we are", {
    registry: (rig) =>
      authorizingRegistry({
        serve: (request) => isRootfs(request, rig) ? redirect(`http://${rig.storage}/b`) : rig.serve(request),
      }).script,
    storage: ({ storage }) => () =>
      respond(401, { headers: { "WWW-Authenticate": bearerChallenge(`http://${storage}/token`) } }),
    loginAt: here,
    ends: ["S0", "REGISTRY_DENIED"],
    heard: ({ registry, storage }) => {
      expect(tokenRequestsOf(registry.requests)).toHaveLength(1);
      expect(storage.requests.map(({ path, headers }) => [path, headers.authorization])).toEqual([[
        "/b",
        undefined,
      ]]);
    },
  }],
  [
    "AU12 all requests of a pull share one token",
    tokens(undefined, {
      heard: ({ registry }) => expect(tokenRequestsOf(registry.requests)).toHaveLength(1),
    }),
  ],
  ...[undefined, 0, -5, 1e12, "60", null].map((expires) =>
    [
      `AU13 a token that is good for ${expires} s`,
      tokens((_request, token) => tokenBody(token, expires === undefined ? {} : { expires_in: expires })),
    ] as const
  ),
  [
    "AU13 a token of tomorrow",
    tokens((_request, token) =>
      tokenBody(token, { expires_in: 300, issued_at: new Date(Date.now() + 86_400_000).toISOString() })
    ),
  ],
  ...[1, -1].map((days) =>
    [
      `AU14 a clock that jumps by ${days} day`,
      tokens((_request, token) => {
        const now = Date.now() + days * 86_400_000;
        vi.spyOn(Date, "now").mockReturnValue(now);
        return tokenBody(token, { expires_in: 300 });
      }, { heard: ({ registry }) => expect(tokenRequestsOf(registry.requests)).toHaveLength(1) }),
    ] as const
  ),
  ...["repository:os/demo:push,delete", "repository:other/image:pull", "registry:catalog:*", ""].map((
    scope,
  ) =>
    [
      `AU15 a challenge for "${scope}"`,
      {
        registry: asking(() => ({ challenge: (self) => bearerChallenge(`${self}/token`, scope) })),
        ends: ["S2"],
        heard: ({ registry }) => {
          const scopes = tokenRequestsOf(registry.requests).map(({ path }) =>
            new URL(path, "http://x").searchParams.getAll("scope")
          );
          expect(scopes).toEqual([["repository:os/demo:pull"]]);
        },
      } satisfies PullCase,
    ] as const
  ),
  ["AU16 storage that is another registry gets no token of this one", {
    registry: (rig) =>
      authorizingRegistry({
        serve: (request) =>
          isRootfs(request, rig) ? redirect(`http://${rig.storage}${request.path}`) : rig.serve(request),
      }).script,
    loginAt: here,
    ends: ["S2"],
    heard: ({ storage }) =>
      expect(storage.requests.map(({ headers }) => headers.authorization)).toEqual([undefined]),
  }],
  ...[
    (port: number) => `registry.example.com.evil:${port}`,
    (port: number) => `registry.example.com:${port + 1}`,
    () => "registry.example.com",
    (port: number) => `xregistry.example.com:${port}`,
    (port: number) => `example.com:${port}`,
  ].map((loginAt, i) =>
    [
      `AU17 a login at a host that looks like it, ${i}`,
      {
        registry: asking(() => ({ challenge: () => "Basic realm=x", password: PASSWORD })),
        loginAt,
        ends: ["S0", "REGISTRY_UNAUTHORIZED"],
        heard: ({ registry }) => {
          for (const secret of SECRETS) {
            expect(heardBy(registry)).not.toContain(secret);
          }
        },
      } satisfies PullCase,
    ] as const
  ),
  ["AU18 a password over TLS", { ...basicOnly("Basic realm=x"), isTls: true }],
  ["AU19 no secret is in the cache", {
    ...basicOnly("Basic realm=x"),
    heard: ({ files }) => {
      for (const secret of SECRETS) expect(files).not.toContain(secret);
    },
  }],
  ["AU24 a refresh token is not kept, and not said to anybody", {
    registry: asking(() => ({
      answerToken: (_request, token) =>
        tokenBody(token, { refresh_token: "canary-refresh", identity_token: "canary-identity" }),
    })),
    loginAt: here,
    ends: ["S2"],
    heard: ({ registry, storage, files }) => {
      expect(files).not.toContain("canary-");
      expect(heardBy(registry, storage)).not.toMatch(/canary-(?:refresh|identity)/);
    },
  }],
];

it.each(CASES)("%s", async (_name, row) => {
  try {
    await run(row);
  } finally {
    vi.restoreAllMocks();
  }
});

it("AU22 a password that is changed on disk in the middle of a pull is used at the next 401: S2", async () => {
  let password = PASSWORD;
  let changeLogin = (_password: string): Promise<void> => Promise.resolve();
  await run({
    registry: (rig) => async (request) => {
      if (request.headers.authorization !== password) {
        return respond(401, { headers: { "WWW-Authenticate": "Basic realm=x" } });
      }
      if (isManifest(request)) {
        await changeLogin("another password");
        password = basic(LOGIN.username, "another password");
      }
      return rig.serve(request);
    },
    loginAt: here,
    onLogin: (change) => void (changeLogin = change),
    ends: ["S2"],
  });
});
