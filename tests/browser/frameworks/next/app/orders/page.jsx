import { cookies } from "next/headers";
import { Who } from "../who";

export default async function Orders() {
  const jar = await cookies();
  return (
    <main>
      <p id="server">{jar.has("unbroken-access") ? "good" : "none"}</p>
      <Who />
    </main>
  );
}
