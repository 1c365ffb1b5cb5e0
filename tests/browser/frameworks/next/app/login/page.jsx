export default function Login() {
  return <p id="login">login</p>;
}
