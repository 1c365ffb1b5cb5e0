"use client";
import { RequireLogin, useSession } from "unbroken-session/react";
import { session } from "./session";

const Name = () => <p id="client">{useSession(session).user?.sub}</p>;

export const Who = () => (
  <RequireLogin session={session} pending={<p id="pending">…</p>}>
    <Name />
  </RequireLogin>
);
