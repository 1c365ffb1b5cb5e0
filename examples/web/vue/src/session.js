import { createSession } from "unbroken-session";

export const session = createSession({ storage: "localStorage" });
