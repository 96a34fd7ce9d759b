//! Which call a path means: one table, also of what is known and not built.

use super::calls::{self, Call};
use super::head::Method;
use super::problem::{Code, Problem};

/// What a request brings behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// Members, or nothing.
    Json,
    /// A message's content, of any type.
    Content,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// Segments in braces stand for any one segment.
    pub(super) path: &'static str,
    pub(super) takes: Takes,
    /// `None` is known and not built.
    pub(super) call: Option<Call>,
}

const fn get(path: &'static str, call: Call) -> Route {
    Route { method: Method::Get, path, takes: Takes::Nothing, call: Some(call) }
}

const fn post(path: &'static str, takes: Takes, call: Call) -> Route {
    Route { method: Method::Post, path, takes, call: Some(call) }
}

const fn delete(path: &'static str, call: Call) -> Route {
    Route { method: Method::Delete, path, takes: Takes::Nothing, call: Some(call) }
}

const fn later(method: Method, path: &'static str) -> Route {
    Route { method, path, takes: Takes::Json, call: None }
}

/// All paths. Tests hold phpmq-http(7) and openapi.json against it.
pub(super) const ROUTES: &[Route] = &[
    get("/healthz", calls::health),
    get("/readyz", calls::readiness),
    get("/v1/status", calls::status),
    get("/v1/openapi.json", calls::openapi),
    get("/v1/problems/{code}", calls::problem),
    get("/v1/queues", calls::queues),
    get("/v1/queues/{queue}", calls::queue),
    delete("/v1/queues/{queue}", calls::delete_queue),
    post("/v1/queues/{queue}/messages", Takes::Content, calls::put),
    post("/v1/queues/{queue}/pause", Takes::Json, calls::pause),
    post("/v1/queues/{queue}/resume", Takes::Json, calls::resume),
    post("/v1/queues/{queue}/kick", Takes::Json, calls::kick),
    post("/v1/queues/{queue}/flush", Takes::Json, calls::flush),
    get("/v1/messages/{id}", calls::message),
    get("/v1/messages/{id}/body", calls::content),
    delete("/v1/messages/{id}", calls::delete_message),
    post("/v1/messages/{id}/kick", Takes::Json, calls::kick_message),
    post("/v1/messages/{id}/bury", Takes::Json, calls::bury_message),
    later(Method::Get, "/metrics"),
    later(Method::Get, "/v1/whoami"),
    later(Method::Get, "/v1/config"),
    later(Method::Post, "/v1/config/reload"),
    later(Method::Post, "/v1/drain"),
    later(Method::Post, "/v1/undrain"),
    later(Method::Put, "/v1/queues/{queue}"),
    later(Method::Patch, "/v1/queues/{queue}"),
    later(Method::Post, "/v1/queues/{queue}/move"),
    later(Method::Get, "/v1/queues/{queue}/messages"),
    later(Method::Post, "/v1/queues/{queue}/receive"),
    later(Method::Post, "/v1/receive"),
    later(Method::Post, "/v1/settle"),
    later(Method::Get, "/v1/messages"),
    later(Method::Post, "/v1/messages"),
    later(Method::Get, "/v1/messages/{id}/history"),
    later(Method::Post, "/v1/messages/{id}/acknowledge"),
    later(Method::Post, "/v1/messages/{id}/release"),
    later(Method::Post, "/v1/messages/{id}/touch"),
    later(Method::Post, "/v1/messages/{id}/move"),
    later(Method::Post, "/v1/messages/{id}/duplicate"),
    later(Method::Post, "/v1/messages/{id}/replay"),
    later(Method::Get, "/v1/operations"),
    later(Method::Post, "/v1/operations"),
    later(Method::Get, "/v1/operations/{id}"),
    later(Method::Delete, "/v1/operations/{id}"),
    later(Method::Post, "/v1/operations/{id}/undo"),
    later(Method::Get, "/v1/connections"),
    later(Method::Get, "/v1/connections/{id}"),
    later(Method::Delete, "/v1/connections/{id}"),
    later(Method::Get, "/v1/routes"),
    later(Method::Delete, "/v1/routes/{name}"),
    later(Method::Get, "/v1/rules"),
    later(Method::Get, "/v1/rules/{name}"),
    later(Method::Put, "/v1/rules/{name}"),
    later(Method::Delete, "/v1/rules/{name}"),
    later(Method::Post, "/v1/rules/{name}/pause"),
    later(Method::Post, "/v1/rules/{name}/resume"),
    later(Method::Post, "/v1/rules/{name}/run"),
    later(Method::Get, "/v1/jobs"),
    later(Method::Post, "/v1/jobs"),
    later(Method::Get, "/v1/jobs/{id}"),
    later(Method::Delete, "/v1/jobs/{id}"),
    later(Method::Post, "/v1/jobs/{id}/restart"),
    later(Method::Get, "/v1/statistics"),
    later(Method::Get, "/v1/backup"),
    later(Method::Get, "/v1/backups"),
    later(Method::Post, "/v1/backups"),
    later(Method::Get, "/v1/backups/{name}"),
    later(Method::Delete, "/v1/backups/{name}"),
    later(Method::Get, "/v1/export"),
    later(Method::Get, "/v1/events"),
];

/// What a request means.
#[derive(Debug)]
pub(super) enum Found {
    /// This call, with these segments of the path in the places of braces.
    Call(&'static Route, Vec<String>),
    /// The methods that the path has.
    Methods(String),
}

/// Finds the route of a request.
pub(super) fn find(method: Method, path: &str) -> Result<Found, Problem> {
    // A request for the head is one for the whole that leaves out the body.
    let wanted = if method == Method::Head { Method::Get } else { method };
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(names) = matches(route.path, path) else { continue };
        if route.method == wanted {
            return if route.call.is_some() {
                Ok(Found::Call(route, names))
            } else {
                Err(Problem::new(Code::NotSupported, "this call is not built yet"))
            };
        }
        others.push(route.method);
    }
    match (method, others.is_empty()) {
        (Method::Options, false) => Ok(Found::Methods(allow(&others))),
        (Method::Options, true) if path == "*" => {
            let all = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete];
            Ok(Found::Methods(allow(&all)))
        }
        (_, true) => Err(Problem::new(Code::NoSuchPath, "nothing has this path")),
        (_, false) => Err(Problem::not_allowed(allow(&others))),
    }
}

/// The segments of a path in the places of braces, if the path is of this kind.
fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut names = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(names),
            (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => {
                names.push(segment.to_owned());
            }
            (Some(same), Some(segment)) if same == segment => {}
            _ => return None,
        }
    }
}

fn allow(methods: &[Method]) -> String {
    let mut words = Vec::new();
    for method in methods {
        words.push(method.word());
        if *method == Method::Get {
            words.push(Method::Head.word());
        }
    }
    words.push(Method::Options.word());
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_one_call_and_brings_its_names() {
        let Ok(Found::Call(route, names)) = find(Method::Post, "/v1/queues/a%2Fb/messages") else {
            panic!("this is a path");
        };
        assert_eq!(
            (route.path, &names[..]),
            ("/v1/queues/{queue}/messages", &["a%2Fb".to_owned()][..])
        );
        assert!(matches!(find(Method::Head, "/healthz"), Ok(Found::Call(..))));
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let code = |method, path| find(method, path).unwrap_err().code;
        assert_eq!(code(Method::Get, "/v1/queues/"), Code::NoSuchPath);
        assert_eq!(code(Method::Get, "/v1/queues//messages"), Code::NoSuchPath);
        assert_eq!(code(Method::Get, "/v2/status"), Code::NoSuchPath);
        assert_eq!(code(Method::Post, "/v1/status"), Code::MethodNotAllowed);
        assert_eq!(code(Method::Other, "/v1/status"), Code::MethodNotAllowed);
        assert_eq!(code(Method::Get, "/v1/events"), Code::NotSupported);
    }

    #[test]
    fn options_are_the_methods_of_the_path() {
        let methods = |path| match find(Method::Options, path) {
            Ok(Found::Methods(methods)) => methods,
            other => panic!("{other:?}"),
        };
        assert_eq!(methods("/healthz"), "GET, HEAD, OPTIONS");
        assert_eq!(methods("/v1/messages/7"), "GET, HEAD, DELETE, OPTIONS");
        assert!(methods("*").contains("POST"));
        assert!(find(Method::Options, "/nothing").is_err());
    }

    /// What was told is every call that is built, and no other.
    fn assert_describes_what_is_built(mut told: Vec<String>) {
        let built = ROUTES.iter().filter(|route| route.call.is_some());
        let built = built.map(|route| format!("{} {}", route.method.word(), route.path));
        let mut built: Vec<String> = built.collect();
        told.sort_unstable();
        built.sort_unstable();
        assert_eq!(told, built);
    }

    #[test]
    fn the_manual_page_describes_every_call_that_is_built_and_no_other() {
        let page = include_str!("../../../man/phpmq-http.7");
        let (_, section) = page.split_once("\n.Sh CALLS\n").unwrap();
        let section = section.split("\n.Sh ").next().unwrap();
        let told = section.lines().filter_map(|line| line.strip_prefix(".It "));
        let told = told.map(str::to_owned).collect();
        assert_describes_what_is_built(told);
    }

    #[test]
    fn the_document_describes_every_call_that_is_built_and_no_other() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("openapi.json")).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut told: Vec<String> = Vec::new();
        for (path, methods) in paths {
            let methods = methods.as_object().unwrap().keys();
            told.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        assert_describes_what_is_built(told);
        for route in ROUTES.iter().filter(|route| route.call.is_some()) {
            let call = &paths[route.path][route.method.word().to_lowercase()];
            let has_body = call.get("requestBody").is_some();
            assert_eq!(has_body, route.takes != Takes::Nothing, "{}", route.path);
        }
    }

    #[test]
    fn no_two_rows_mean_the_same() {
        for (at, route) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| (other.method, other.path) == (route.method, route.path);
            assert!(!ROUTES.iter().skip(at + 1).any(|other| same(&other)), "{}", route.path);
        }
    }
}
