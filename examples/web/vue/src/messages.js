// What users read, by the code of an error.
const MESSAGES = {
  access_denied: "用户名或密码错误",
  session_over: "登录已过期，请重新登录",
  try_later: "服务暂时不可用，请稍后再试",
};

export const messageOf = (error) => MESSAGES[error.code] ?? "请求失败";
