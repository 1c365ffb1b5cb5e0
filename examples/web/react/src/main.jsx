import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { connectQueries } from "unbroken-session/query";
import { RequireLogin, SessionProvider } from "unbroken-session/react";
import { Login } from "./Login";
import { Orders } from "./Orders";
import { session } from "./session";

const client = new QueryClient();
connectQueries(client, session); // what to retry, and what to forget at a logout

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <SessionProvider session={session}>
      <QueryClientProvider client={client}>
        <RequireLogin login={() => <Login />}>
          <Orders />
        </RequireLogin>
      </QueryClientProvider>
    </SessionProvider>
  </StrictMode>,
);
