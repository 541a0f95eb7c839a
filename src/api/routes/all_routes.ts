import type { Route } from "../route.ts";
import { IMAGE_ROUTES } from "./image_routes.ts";
import { MACHINE_ROUTES } from "./machine_routes.ts";
import { OPERATION_ROUTES } from "./operations_routes.ts";
import { PREPARE_ROUTES } from "./prepare_routes.ts";
import { SERVICE_ROUTES } from "./service_routes.ts";

/** Every route but the document's own. */
export const ALL_ROUTES: readonly Route[] = [
  ...PREPARE_ROUTES,
  ...OPERATION_ROUTES,
  ...IMAGE_ROUTES,
  ...MACHINE_ROUTES,
  ...SERVICE_ROUTES,
];
