import { useState } from "react";
import { useSession } from "unbroken-session/react";

export const Login = () => {
  const { login } = useSession();
  const [problem, setProblem] = useState("");
  const send = (event) => {
    event.preventDefault();
    const { name, password } = Object.fromEntries(new FormData(event.target));
    login(name, password).catch(({ message }) => setProblem(message));
  };
  return (
    <form onSubmit={send}>
      <input name="name" autoComplete="username" placeholder="Name" />
      <input name="password" autoComplete="current-password" placeholder="Password" type="password" />
      <button>Log in</button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
};
